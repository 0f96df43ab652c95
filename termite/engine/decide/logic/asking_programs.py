"""Know the programs that would tell a job something else than they tell a local command.

Some ask about the machine, and a worker may be another one. Others show or set extended attributes
and access control lists, of which a job sees none. A script may start them without naming them in
the text of a command. Therefore mirrors get them as sealed files, which no job can open: the
command that starts one runs on the master's machine.
"""

import stat

from termite.engine.decide.logic.questions import Question, answers_alike, questions_in
from termite.engine.errors import Reason
from termite.engine.model import Attr, MachineFacts

_ASKING = {name: questions_in(name) for name in ("arch", "cpuid", "getconf", "lscpu", "nproc", "sysctl", "uname")}
_OF_ATTRIBUTES = frozenset(("chacl", "chattr", "getfacl", "getfattr", "lsattr", "setfacl", "setfattr"))
_DIRECTORIES = frozenset(("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin"))


def reason_to_seal(path: bytes, ours: MachineFacts, theirs: MachineFacts) -> Reason | None:
    """Return why jobs on their machine must not start the program at a path, or None if they may.

    The path is one of the tree. None is the answer for most paths, and takes no time.
    """
    questions = _questions_of(path)
    if questions is None or (questions and answers_alike(questions, ours, theirs)):
        return None
    return Reason.OTHER_MACHINE if questions else Reason.ATTRIBUTES_SET


def reason_of_program(path: str) -> Reason | None:
    """Return why the program at an absolute path may be sealed, or None if it is none of these."""
    questions = _questions_of(path.strip("/").encode(errors="surrogateescape"))
    if questions is None:
        return None
    return Reason.OTHER_MACHINE if questions else Reason.ATTRIBUTES_SET


def seal_programs(directory: bytes, children: dict[bytes, Attr], ours: MachineFacts, theirs: MachineFacts) -> None:
    """Seal those of a directory's entries that jobs on their machine must not start."""
    if directory.decode(errors="replace") not in _DIRECTORIES:
        return
    for name in (*_ASKING, *_OF_ATTRIBUTES):
        attr = children.get(name.encode())
        if attr is not None and reason_to_seal(directory + b"/" + name.encode(), ours, theirs):
            mode = attr.mode if stat.S_ISREG(attr.mode) else stat.S_IFREG | 0o755
            children[name.encode()] = Attr(mode, max(attr.size, 1), attr.mtime_ns)


def _questions_of(path: bytes) -> frozenset[Question] | None:
    """Return what a program asks, nothing if it is one for attributes, or None if it is neither."""
    directory, _, name = path.decode(errors="replace").rpartition("/")
    if directory not in _DIRECTORIES:
        return None
    return _ASKING.get(name, frozenset() if name in _OF_ATTRIBUTES else None)
