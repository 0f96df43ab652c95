"""Tell an error that says what is at a path from an error of the look itself.

An absence is a fact: a command that does not find a file ends otherwise, with exit code 0. EIO,
ENOMEM, EMFILE or ESTALE says nothing about the file, so nobody may conclude anything from it.
"""

from errno import EACCES, ELOOP, ENAMETOOLONG, ENOENT, ENOTCONN, ENOTDIR, EPERM

# These say what is there: nothing, or something that a local command cannot open either. ENOTCONN
# is a dead FUSE mount, which stays dead until somebody unmounts it. A job must not take what was
# refused for absent: it gets the same error, or it runs here (tree/tools/refused_entries.py).
GONE = frozenset({ENOENT, ENOTDIR, ELOOP})
REFUSED = frozenset({EACCES, EPERM, ENAMETOOLONG, ENOTCONN})


def is_answer(error: OSError) -> bool:
    """Return whether the error says that there is nothing, or nothing that we may use."""
    return error.errno in GONE or error.errno in REFUSED
