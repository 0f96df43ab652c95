"""Make the calls with which this room reads and writes its index.

Tests put other calls in their place, which end the process or fail at the N-th one. The product
itself has no such switch.
"""

import sqlite3
from collections.abc import Sequence
from os import chmod as chmod
from os import listdir as listdir
from os import makedirs as makedirs
from os import stat as stat
from os import unlink as unlink

Row = tuple[object, ...]


def open_database(path: str, timeout_s: float) -> sqlite3.Connection:
    """Open a database, which begins no transaction by itself."""
    return sqlite3.connect(path, isolation_level=None, timeout=timeout_s, check_same_thread=False)


def execute(database: sqlite3.Connection, statement: str, values: Sequence[object] = ()) -> list[Row]:
    """Run one statement, and return all of its rows."""
    return database.execute(statement, values).fetchall()
