"""Decide what becomes of writes outside the tree, and remember the places for one build.

Files there cannot come home, so the command runs on the master's machine. Another command that
names such a place runs there at once. The command itself is remembered for longer, by its exact
words (refused_commands.py).
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from termite.engine.decide.environment import environment_of
from termite.engine.decide.loaded_plugins import Plugins
from termite.engine.decide.logic.droppable import DroppablePlaces
from termite.engine.decide.logic.outside_places import OutsidePlaces, paths_in, relative_to, system_directory
from termite.engine.decide.logic.suggested_rule import suggest_rule
from termite.engine.model import Command

MAX_TEXTS = 100  # of one place, from which a rule is made
MAX_ENVIRONMENTS = 16  # for which the droppable places are kept; most builds have a few
MAX_WORDS = 200  # of one command that are resolved, each by a few system calls


@dataclass(frozen=True, slots=True)
class WritesOutside:
    """The writes of one job outside the tree, as absolute paths.

    `lost` may be missed by somebody. `dropped` counts the other ones by their droppable place.
    """

    lost: tuple[str, ...]
    dropped: Counter[str]


@dataclass(slots=True)
class _WrittenPlace:
    """A place outside the tree in the present build.

    `texts` are those of the commands that ran here because of it, each with its directory.
    """

    texts: dict[str, str] = field(default_factory=dict)


class OutsideWrites:
    """The knowledge of one master of writes outside its tree."""

    def __init__(self, writable_root: str, plugins: Plugins) -> None:
        """Ask `plugins` what may be dropped outside the writable root."""
        self._root = writable_root
        self._plugins = plugins
        self._places = OutsidePlaces(writable_root)
        self._texts: dict[str, _WrittenPlace] = {}
        self._droppable: dict[bytes, DroppablePlaces] = {}

    def begin_build(self) -> None:
        """Forget the places of earlier builds."""
        self._places.clear()
        self._texts.clear()

    def sort(self, paths: Sequence[bytes], command: Command) -> WritesOutside:
        """Sort paths outside the tree by whether a build may do without them."""
        droppable = self._droppable_of(command)
        lost, dropped = [], Counter[str]()
        for path in paths:
            name = "/" + os.fsdecode(path)
            if place := droppable.place_of(name):
                dropped[place] += 1
            else:
                lost.append(name)
        return WritesOutside(tuple(lost), dropped)

    def is_droppable(self, path: str, command: Command) -> bool:
        """Return whether a build may do without what the command writes to an absolute path."""
        return bool(self._droppable_of(command).place_of(path))

    def place_in(self, command: Command) -> str:
        """Return the place of this build that the command's text names, or "" if it names none."""
        return self._places.place_in(command.text, command.cwd)

    def add(self, command: Command, paths: Sequence[str]) -> str:
        """Add the place where the command wrote these paths, and return it.

        The command's words are resolved on the disk: they may lead there by a symlink.
        """
        return self._places.add(paths, self._names_in(command, paths))

    def add_place(self, place: str) -> str:
        """Add a place that is known from an earlier build, and return what stands for it."""
        return self._places.add_place(place)

    def __bool__(self) -> bool:
        """Return whether this build has such a place."""
        return bool(self._places)

    def count(self, command: Command, place: str) -> None:
        """Note that the command runs on the master's machine because of `place`."""
        texts = self._texts.setdefault(place, _WrittenPlace()).texts
        if len(texts) < MAX_TEXTS:
            texts[command.text] = command.cwd

    def summarized(self, counts: Mapping[str, int]) -> Counter[str]:
        """Return how many commands ran here because of each place of a summary.

        `counts` has the commands of each place where one wrote. An installation makes many files in
        a directory of the system, each a place of its own: this directory stands for them.
        """
        known = Counter[str]()
        for place, count in counts.items():
            known[self._place_of(place)] += count
        files = Counter(map(system_directory, known))
        found = Counter[str]()
        for place, count in known.items():
            directory = system_directory(place)
            found[directory if directory and files[directory] > 1 else place] += count
        return found

    def rule_for(self, place: str) -> str:
        """Return a rule that makes the commands local that ran here because of `place`, or "".

        `place` is one of a summary. The rule names files of the system, and never their directory.
        """
        texts: dict[str, str] = {}
        names: dict[str, None] = {}
        for known, commands in self._texts.items():
            found = self._place_of(known)
            if place in (found, system_directory(found)):
                texts |= commands.texts
                names |= dict.fromkeys(self._places.names_of(found) or [found])
        if not texts:
            return ""
        spelled = dict(names)
        for cwd in dict.fromkeys(texts.values()):
            spelled |= dict.fromkeys(relative_to(name, cwd) for name in names)
        spelled.pop("", None)
        return suggest_rule(texts, spelled)

    def _place_of(self, place: str) -> str:
        """Return the place that stands for this one in the present build."""
        return self._places.containing(place) or place

    def _droppable_of(self, command: Command) -> DroppablePlaces:
        environment = environment_of(command)
        found = self._droppable.get(environment.digest)
        if found is None:
            named = self._plugins.droppable(environment)
            # A cache may be a symlink to a larger disk.
            real = [os.path.realpath(place) for place in named if place.startswith("/")]
            found = DroppablePlaces((*named, *real), self._root)
            if len(self._droppable) >= MAX_ENVIRONMENTS:
                self._droppable.clear()
            self._droppable[environment.digest] = found
        return found

    def _names_in(self, command: Command, paths: Sequence[str]) -> list[str]:
        """Return the symlinks in the command's text that lead to the directory of `paths`."""
        names: dict[str, None] = {}
        directories = {os.path.dirname(path) for path in paths}
        for word in paths_in(command.text)[:MAX_WORDS]:
            name = os.path.normpath(os.path.join(command.cwd, word))
            while name != "/" and name.startswith(self._root + "/"):
                if not os.path.islink(name):
                    name = os.path.dirname(name)
                    continue
                real = os.path.realpath(name)
                if any(f"{directory}/".startswith(f"{real}/") for directory in directories):
                    names[name] = None
                break
        return list(names)
