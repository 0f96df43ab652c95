"""Decide whether a command runs on a worker or on the master's machine.

Rules come first: those of the user, of the plugins and of termite itself. A command that is tied to
this machine (logic/ties.py) runs here whatever the rules say. A command also runs here if it names
a variable that must not leave the machine, or contains its value. Last comes what is known of the
command: its result was refused before, or it names a place of this machine that no job has.

A make or ninja below a build may work outside the tree, and its commands may write there. Files
of jobs there do not come home. Only its commands that name the tree run on workers.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

from termite.engine.decide.environment import environment_of
from termite.engine.decide.logic.outside_places import names_path
from termite.engine.decide.logic.rules import RuleBook
from termite.engine.decide.logic.switches import is_local_forbidden
from termite.engine.decide.outside_writes import OutsideWrites
from termite.engine.decide.private_places import PrivatePlaces
from termite.engine.decide.refused_commands import Refusal
from termite.engine.errors import Reason
from termite.engine.model import Command, How, Verdict
from termite.engine.paths import is_inside


class Tie(NamedTuple):
    """The reason that ties a command to this machine, and the place that is to blame, or ""."""

    reason: Reason
    place: str = ""


class KnownPlaces(NamedTuple):
    """The places that tie a command to this machine: those outside the tree, and private ones."""

    outside: OutsideWrites
    private: PrivatePlaces


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


def tie_by_memory(
    command: Command,
    verdict: Verdict,
    env: Mapping[str, str],
    find_refusal: Callable[[], Refusal | None],
    places: KnownPlaces,
) -> Tie | None:
    """Return what ties a command to this machine that no rule makes local, or None.

    It runs here if its result would be refused, or if it names a private path or a FIFO. With
    TERMITE_LOCAL=never in `env` it goes to a worker all the same: a local run without a rule would
    be against the user's word. `find_refusal` returns why the result would be refused, or None; it
    is called once, unless TERMITE_LOCAL=never.
    """
    if is_local_forbidden(env):
        return None
    refusal = find_refusal()
    if refusal and not (refusal.reason is Reason.LATER_CODE and verdict.rule is not None and verdict.rule.trusted):
        return Tie(refusal.reason, refusal.place)
    if place := places.outside.place_in(command):
        return Tie(Reason.WRITES_OUTSIDE, place)
    is_droppable = functools.partial(places.outside.is_droppable, command=command)
    if place := places.private.place_in(command.text, command.cwd, command.env, is_droppable):
        return Tie(Reason.NAMES_FIFO if places.private.is_meeting_place(place) else Reason.NAMES_PRIVATE, place)
    return None


def may_run_as_short(verdict: Verdict, env: Mapping[str, str]) -> bool:
    """Return whether a command may run here if it is short: no rule or setting is against it."""
    return not verdict.local and verdict.rule is None and not is_local_forbidden(env)


def _has_left(command: Command, root: str) -> bool:
    """Return whether a command was started outside the tree and does not name it."""
    return not is_inside(command.cwd, root) and not names_path(command.text, root)
