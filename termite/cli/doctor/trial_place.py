"""Make the directory in which the files of trial jobs lie, and remove it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from termite.cli.daemons import default_tmpdir
from termite.engine.private_directories import locked_directory, remove_leftovers, remove_tree

DIRECTORY_PREFIX = "termite-doctor-"


@contextmanager
def trial_place() -> Iterator[Path]:
    """Make a directory for the job's files, and remove it at the end. Raise OSError."""
    tmpdir = default_tmpdir()
    remove_leftovers(tmpdir, DIRECTORY_PREFIX)
    path, lock = locked_directory(tmpdir, DIRECTORY_PREFIX, 0o711 if os.geteuid() == 0 else 0o700)
    try:
        yield path
    finally:
        remove_tree(path)
        os.close(lock)
