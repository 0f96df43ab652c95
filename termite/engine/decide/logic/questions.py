"""Find out by its text whether a command asks about the machine on which it runs.

Its result then holds for that machine. On a worker that differs, `gcc -march=native` makes other
code, and `uname -r` names another kernel.

A script may start a program that asks, without naming it in the text of the command. Other programs
show or set extended attributes and access control lists, of which a job sees none. Mirrors get such
programs as sealed files, which no job can open: the command that starts one runs on the master's
machine.
"""

import enum
import re
import stat

from termite.engine.errors import Reason
from termite.engine.model import Attr, MachineFacts


class Question(enum.Enum):
    """A kind of fact that a command may ask for."""

    CPU = "cpu"
    KERNEL = "kernel"
    CORES = "cores"


_ALL = frozenset(Question)
_CPU, _KERNEL, _CORES = (frozenset((kind,)) for kind in Question)
# The question of a command that has the word. `uname -p` and `arch` ask for the architecture, which
# no worker of ours differs in, and for names that follow the kernel.
_WORDS = {
    "native": _CPU,  # -march=native, -mtune=native, -mcpu=native, rustc's target-cpu=native
    "-xHost": _CPU,  # Intel's compilers
    "-tp": _CPU,  # NVIDIA's compilers: -tp=host, -tp host
    "lscpu": _CPU | _CORES,
    "cpuinfo": _CPU | _CORES,
    "cpuid": _CPU,
    "uname": _KERNEL,
    "platform.": _KERNEL,  # of Python
    "sysctl": _KERNEL,
    "arch": _KERNEL,
    "/proc/version": _KERNEL,
    "/proc/sys/kernel": _KERNEL,
    "nproc": _CORES,
    "getconf": _ALL,
    "cpu_count": _CORES,
    "sched_getaffinity": _CORES,
    "/sys/devices/system/cpu": _CPU | _CORES,
}
# These may be parts of other words. A pattern begins with its letters, because the engine then
# finds it ten times as fast.
_PATTERNS = {
    # Each of these must be a word of its own, whatever directory is before it.
    word: re.compile(rf"{word}(?![\w./=-])(?<![\w.=-]{word})")
    for word in ("arch", "nproc", "getconf", "lscpu", "cpuid", "sysctl")
} | {
    "uname": re.compile(r"uname(?:(?![\w./=-])(?<![\w.=-]uname)|(?=\()(?<=\.uname))"),  # also os.uname()
    "platform.": re.compile(r"platform\.(?:platform|release|uname|version)\("),
    # Behind =, also in quotes of a shell, or of a shell in a string; or as a word for clang -cc1.
    "native": re.compile(r"native(?:(?<==native)|(?<==['\"]native)|(?<==\\['\"]native)|(?<=-Xclang native))"),
    "-tp": re.compile(r"-tp(?:=|\s+)['\"]?host\b"),
}


def questions_in(text: str) -> frozenset[Question]:
    """Return what the command with this text asks about its machine. This takes microseconds."""
    asked: frozenset[Question] = frozenset()
    for word, kinds in _WORDS.items():
        if word in text and (word not in _PATTERNS or _PATTERNS[word].search(text)):
            asked |= kinds
    return asked


def answers_alike(questions: frozenset[Question], ours: MachineFacts, theirs: MachineFacts) -> bool:
    """Return whether two machines give the same answers. A fact that is not known differs."""
    if Question.CPU in questions and (not ours.cpu_features or ours.cpu_features != theirs.cpu_features):
        return False
    if Question.KERNEL in questions and (not ours.kernel or ours.kernel != theirs.kernel):
        return False
    if Question.CORES in questions and (not ours.cores or _cores(ours) != _cores(theirs)):
        return False
    return not questions or ours.architecture == theirs.architecture


def _cores(machine: MachineFacts) -> tuple[int, int]:
    return machine.cores, machine.cores_online


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
