"""Find the records of the tree of the current directory, and what a user names in them."""

import os
from collections.abc import Sequence
from pathlib import Path

from termite.cli.client import find_socket
from termite.cli.places import records_directory, working_directory
from termite.engine.errors import UserError
from termite.engine.history.logic.job_record import BuildRecord, JobRecord
from termite.engine.history.past_builds import PastBuilds

LONGEST_NUMBER = 18  # digits of a number that a job may have


class RecordedBuilds:
    """The recorded builds of one tree. All calls block.

    `tree` is its top directory. Raise UserError if nothing was recorded there.
    """

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self.past = PastBuilds(records_directory(tree))

    def build(self, word: str = "") -> BuildRecord:
        """Return the build with this number, or the newest one.

        Raise UserError if there is none.
        """
        builds = self.past.builds()
        if not builds:
            raise _nothing_recorded(self.tree)
        if not word:
            return builds[0]
        found = next((build for build in builds if str(build.id) == word), None)
        if found is None:
            kept = f"{builds[-1].id} to {builds[0].id}" if len(builds) > 1 else str(builds[0].id)
            raise UserError(f"no build {word} is recorded: kept are {kept}", hint="see termite-ctl last")
        return found

    def find(self, word: str) -> list[JobRecord]:
        """Return the jobs that a word names: a job's number, or a file as seen from here.

        The newest job is first. Return [] if there is none.
        """
        if word.isdecimal() and len(word) <= LONGEST_NUMBER and (job := self.past.job(int(word))):
            return [job]
        path = self.below_tree(word)
        return self.past.made(path) if path else []

    def below_tree(self, word: str) -> bytes | None:
        """Return the path of a file below the tree, or None if it is elsewhere.

        The last name of the path may be a symlink that a job has made, so it is not followed.
        """
        parent, name = os.path.split(os.path.join(working_directory(), word))
        path = os.path.normpath(os.path.join(os.path.realpath(parent), name))
        below = os.path.relpath(path, self.tree)
        return None if below == ".." or below.startswith("../") else os.fsencode(below)

    def remarks(self) -> Sequence[str]:
        """Return a line for each file of records that the last call could not read whole."""
        return [
            f"{part.path}: {part.damage.wound.value} at byte {part.damage.offset}; the rest was read"
            for part in self.past.damages
        ]


def recorded_builds_here() -> RecordedBuilds:
    """Return the records of the tree of the current directory.

    The tree is that of the master which runs here, or else of the nearest directory with records.
    Raise UserError if there are none.
    """
    directory = working_directory()
    socket = find_socket(directory)
    if socket is not None and records_directory(socket.parent).is_dir():
        return RecordedBuilds(socket.parent)
    for place in (directory, *directory.parents):
        if records_directory(place).is_dir():
            return RecordedBuilds(place)
    raise _nothing_recorded(directory)


def _nothing_recorded(directory: Path) -> UserError:
    return UserError(f"no build of {directory} is recorded", hint="build with termite-make or the like")
