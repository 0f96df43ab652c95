"""Remember the symlinks of the user behind which files have other names that make code run later.

`.githooks` may lead to `tools/hooks`, and `.git/hooks/pre-push` to a script. No job has made such a
symlink: a result that holds one is refused. But a job may write the files to which it leads.
"""

import os
import stat
from collections.abc import Callable

from termite.engine import look_calls
from termite.engine.look_errors import is_answer
from termite.engine.paths import from_root_down, is_within, join
from termite.engine.tree.tools.programs import way_to
from termite.engine.tree.tree_disk import look_failed

MOST_LINKS = 100  # each costs a result some ten system calls
# Jobs hardly ever list these directories below the root, where git has its hooks.
_UNLISTED = b".git/hooks"


class CodeLinks:
    """The symlinks of one tree at `root` for which a given function returns True.

    They are those of the directories that were read, and of the root and the hooks of git there.
    """

    def __init__(self, root: bytes) -> None:
        self._root = root
        self._may_lead: Callable[[bytes], bool] | None = None
        self._links: set[bytes] = set()

    def begin(self, may_lead: Callable[[bytes], bool]) -> None:
        """Note each symlink from now on whose path may lead to later code, by this function."""
        self._may_lead = may_lead
        self.look()

    def look(self) -> None:
        """Note the symlinks of the root and of git's hooks there. This blocks on the disk."""
        for below in from_root_down(_UNLISTED):
            directory = join(self._root, below) if below else self._root
            try:
                if not stat.S_ISDIR(look_calls.lstat(b"/" + directory).st_mode):
                    return
                with look_calls.scandir(b"/" + directory) as found:
                    names = [entry.name for entry in found if entry.is_symlink()]
            except OSError as error:
                if not is_answer(error):
                    raise look_failed(directory, error) from error
                return
            for name in names:
                self.note(join(directory, os.fsencode(name)))

    def note(self, link: bytes) -> None:
        """Note a symlink, if it may lead to later code."""
        if self._may_lead is not None and len(self._links) < MOST_LINKS and self._may_lead(link):
            self._links.add(link)

    def ways(self) -> list[tuple[bytes, tuple[bytes, ...]]]:
        """Return each symlink with the places on its way: further symlinks, and what they lead to.

        A way ends where it leaves the tree, in which no result is written. Raise Retryable if a
        look fails.
        """
        found = []
        for link in sorted(self._links) if self._links else ():
            try:
                links, real = way_to(b"/" + link, self._is_elsewhere)
            except OSError as error:
                raise look_failed(link, error) from error
            if links[:1] == [b"/" + link]:
                found.append((link, tuple(step.strip(b"/") for step in (*links[1:], real) if step)))
            else:
                self._links.discard(link)  # the user has removed it
        return found

    def _is_elsewhere(self, step: bytes) -> bool:
        place = step.strip(b"/")
        return not is_within(place, self._root) and not is_within(self._root, place)
