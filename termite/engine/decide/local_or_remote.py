"""Decide whether a command runs on a worker or on the master's machine.

Rules come first: those of the user, of the plugins and of termite itself. A command that is tied to
this machine (logic/ties.py) runs here whatever the rules say. A command also runs here if it names
a variable that must not leave the machine, or contains its value.

A make or ninja below a build may work outside the tree, and its commands may write there. Files
of jobs there do not come home. Only those of its commands run on workers that name the tree.
"""

from termite.engine.decide.environment import environment_of
from termite.engine.decide.logic.rules import RuleBook
from termite.engine.errors import Reason
from termite.engine.model import Command, How, Verdict


def decide(
    command: Command, book: RuleBook, env_exclude: tuple[str, ...] = (), root: str = "", how: How = How.DIRECT
) -> Verdict:
    """Return the verdict on a command, with the rule or the tie that makes it local.

    `env_exclude` are shell patterns for names of variables that no worker gets. `root` is the
    absolute path of the tree, or "" if it does not matter. `how` the command was started.
    """
    verdict = book.decide(command.text)
    if verdict.local:
        return verdict
    environment = environment_of(command)
    tie = environment.tie
    if tie is None and env_exclude and environment.reveals_missing((command.text, *command.argv), env_exclude):
        tie = Reason.NAMES_EXCLUDED
    if tie is None and root and how is not How.DIRECT and _has_left(command, root):
        tie = Reason.OUTSIDE_TREE
    return Verdict(local=True, tie=tie) if tie else verdict


def _has_left(command: Command, root: str) -> bool:
    """Return whether a command was started outside the tree and does not name it."""
    is_within = command.cwd == root or command.cwd.startswith(f"{root.rstrip('/')}/")
    return not is_within and root not in command.text
