"""Decide whether a command runs on a worker or on the master's machine.

Rules come first: those of the user, of the plugins and of termite itself. A command that is tied to
this machine (logic/ties.py) runs here whatever the rules say.
"""

from termite.engine.decide.environment import environment_of
from termite.engine.decide.logic.rules import RuleBook
from termite.engine.model import Command, Verdict


def decide(command: Command, book: RuleBook) -> Verdict:
    """Return the verdict on a command, with the rule or the tie that makes it local."""
    verdict = book.decide(command.text)
    tie = None if verdict.local else environment_of(command).tie
    return Verdict(local=True, tie=tie) if tie else verdict
