"""Look at the AttrTree, and collect the facts that are missing for a decision.

A missing fact does not end a decision at once. Other facts are asked for as well, so that the
caller gets all of them in one round. A decision without a fact is of no use: `check` raises then.
"""

import hashlib
import stat
from collections.abc import Collection, Mapping

from termite.engine.model import Attr
from termite.engine.tree.logic.attrs import AttrTree, Seen

EMPTY_SHA256 = hashlib.sha256().digest()
UNKNOWN_SHA256 = b"?"  # stands for a digest until it is known
HEAD_BYTES = 4096  # of a program, in which its interpreter is named


# A path without symlinks, the SHA-256 of its content, and the texts to look for in it.
Search = tuple[bytes, bytes, tuple[bytes, ...]]


class FactsMissing(Exception):
    """Facts of the tree are missing. The caller gets them, and asks again.

    `directories` must be served. `contents` are files without a digest. `heads` are programs whose
    interpreter is unknown, with the SHA-256 of their contents. `texts` are files to be searched,
    each with the SHA-256 of its content and the texts to look for.
    """

    def __init__(
        self,
        directories: set[bytes],
        contents: set[bytes],
        heads: set[tuple[bytes, bytes]],
        texts: Collection[Search] = (),
    ) -> None:
        super().__init__(len(directories), len(contents), len(heads), len(texts))
        self.directories = directories
        self.contents = contents
        self.heads = heads
        self.texts = texts


class UnservedDirectory(Exception):
    """A directory whose names are not known. `TreeFacts` has noted it."""


class TreeFacts:
    """A look at the AttrTree as it is now.

    `interpreters` has the interpreter of programs by the SHA-256 of their contents, b"" for those
    without one. `texts` has those that were found in a content, by its SHA-256 and all that were
    looked for. Paths have no symlinks in them.
    """

    def __init__(
        self,
        tree: AttrTree,
        interpreters: Mapping[bytes, bytes] | None = None,
        texts: Mapping[tuple[bytes, tuple[bytes, ...]], frozenset[bytes]] | None = None,
    ) -> None:
        self._tree = tree
        self._interpreters = interpreters if interpreters is not None else {}
        self._texts = texts if texts is not None else {}
        self._searches: set[Search] = set()
        self._directories: set[bytes] = set()
        self._contents: set[bytes] = set()
        self._heads: set[tuple[bytes, bytes]] = set()
        self._found: dict[bytes, Mapping[bytes, Seen]] = {}  # by directory, as far as they were needed

    def check(self) -> None:
        """Raise FactsMissing if a fact was missing since the facts were made."""
        if self._directories or self._contents or self._heads or self._searches:
            raise FactsMissing(self._directories, self._contents, self._heads, self._searches)

    def attr(self, path: bytes) -> Attr | None:
        """Return the attributes of an entry, or None if its directory does not have it.

        The parent must be a directory. Raise UnservedDirectory if its names are unknown.
        """
        if not path:
            seen = self._tree.seen(path)
        else:
            parent, _, name = path.rpartition(b"/")
            entries = self._found.get(parent)
            seen = (self.names(parent) if entries is None else entries).get(name)
        return None if seen is None else seen.attr

    def find(self, path: bytes) -> Attr | None:
        """Return the attributes of an entry, or None if it or a directory above it is none.

        Raise UnservedDirectory if the names of one of the directories are unknown.
        """
        parent = path.rpartition(b"/")[0]
        if path and parent not in self._found:
            above = self.find(parent)
            if above is None or not stat.S_ISDIR(above.mode):
                return None
        return self.attr(path)

    def names(self, directory: bytes) -> Mapping[bytes, Seen]:
        """Return the entries of a directory by name.

        Raise UnservedDirectory if they are unknown.
        """
        if not self._tree.is_served(directory):
            self._directories.add(directory)
            raise UnservedDirectory
        entries = self._found[directory] = self._tree.listing(directory)
        return entries

    def sha256(self, path: bytes, attr: Attr) -> bytes:
        """Return the digest of a regular file with these attributes; b"?" and a note if unknown."""
        if attr.digest is not None:
            return attr.digest.sha256
        if attr.size == 0:
            return EMPTY_SHA256
        self._contents.add(path)
        return UNKNOWN_SHA256

    def interpreter(self, path: bytes, sha256: bytes) -> bytes:
        """Return the interpreter of a program with this content, or b"" if it has none.

        If it is not known, note that, and return b"".
        """
        found = self._interpreters.get(sha256)
        if found is None and sha256 != UNKNOWN_SHA256:
            self._heads.add((path, sha256))
        return found or b""

    def texts_in(self, path: bytes, sha256: bytes, wanted: tuple[bytes, ...]) -> frozenset[bytes] | None:
        """Return which of the wanted texts are in a file with this content.

        If that is not known, note it, and return None.
        """
        found = self._texts.get((sha256, wanted))
        if found is None and sha256 != UNKNOWN_SHA256:
            self._searches.add((path, sha256, wanted))
        return found
