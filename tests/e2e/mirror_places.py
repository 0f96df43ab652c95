"""Places for mirrors and the ways in which they are started. Test modules share this."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from termite.engine.private_directories import remove_tree
from tests.e2e.mirrors import Starter

NOBODY = 61000  # any id that no one has
STARTERS = {"as this user": Starter()}
if os.getuid() == 0:
    STARTERS |= {"as an ordinary user": Starter(user=NOBODY), "by root for a user": Starter(uid=NOBODY)}


@contextmanager
def mirror_place(top: str = "/var/tmp") -> Iterator[Path]:
    """Make a directory with a `project`, and remove it with all that jobs have left.

    It is outside /tmp, because mirrors run as users who may not enter pytest's directories.
    """
    path = Path(tempfile.mkdtemp(prefix="termite-mirror-", dir=top))
    path.chmod(0o755)
    (path / "project").mkdir()
    yield path
    remove_tree(path)  # overlayfs leaves directories that their owner may not enter
    assert not path.exists()
