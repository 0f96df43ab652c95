"""Decide whether a command runs on a worker or on the master's machine.

Rules come first: those of the user, of the plugins and of termite itself. A command that is tied to
this machine (logic/ties.py) runs here whatever the rules say. A command also runs here if it names
a variable that must not leave the machine, or contains its value.
"""

from termite.engine.decide.environment import environment_of
from termite.engine.decide.logic.rules import RuleBook
from termite.engine.errors import Reason
from termite.engine.model import Command, Verdict


def decide(command: Command, book: RuleBook, env_exclude: tuple[str, ...] = ()) -> Verdict:
    """Return the verdict on a command, with the rule or the tie that makes it local.

    `env_exclude` are shell patterns for names of variables that no worker gets.
    """
    verdict = book.decide(command.text)
    if verdict.local:
        return verdict
    environment = environment_of(command)
    tie = environment.tie
    if tie is None and env_exclude and environment.reveals_missing((command.text, *command.argv), env_exclude):
        tie = Reason.NAMES_EXCLUDED
    return Verdict(local=True, tie=tie) if tie else verdict
