"""Compute the weak fingerprint of a command, and the strong one of a command in one tree.

A weak fingerprint has all that is known before the tree is looked at. Variables of the environment
are all in it, because nobody sees which of them a program reads. The exceptions are `UNKEYED`: jobs
whose results may be recalled do not get these variables at all.
"""

import fnmatch
import functools
import hashlib
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from termite.engine.model import StdinFile
from termite.engine.recall.logic.uses import State

# Raise it if fingerprints, path sets or results get another meaning. Everything stored is then new.
FORMAT = 3

# Terminals, sessions and shells set them, and nobody sets them for a command. The environment of a
# job that may be recalled lacks them, so that no result can depend on them. Variables that a user
# or a Makefile may set on purpose, such as LINES or DISPLAY, must not be here.
UNKEYED = (
    *("SSH_AUTH_SOCK", "SSH_AGENT_PID", "SSH_TTY", "SSH_CONNECTION", "SSH_CLIENT", "DBUS_SESSION_BUS_ADDRESS"),
    *("XDG_SESSION_ID", "WINDOWID", "TMUX", "TMUX_PANE", "STY", "TERM_SESSION_ID", "TERM_PROGRAM*"),
    *("OLDPWD", "_", "SHLVL", "HISTFILE", "HISTSIZE", "HISTCONTROL", "HISTFILESIZE"),
    *("MAKE_TERMOUT", "MAKE_TERMERR", "TERMITE", "TERMITE_*"),
)

STDIN_CLOSED, STDIN_ENDED = b"closed", b"ended"


@dataclass(frozen=True, slots=True)
class CommandIdentity:
    """All that is known of a command before the tree is looked at.

    `env` has the words NAME=TEXT that its job gets. `stdin` is b"" for /dev/null, STDIN_CLOSED,
    STDIN_ENDED for a pipe at its end, or what `stdin_of_file` returns. `ids` are those of the user
    and the groups, `limits` those of Run with the limit of memory. `terminal` has the size of the
    window and which streams are terminals, or is () without one. `root` is the writable root.
    `machine` is b"", or names the class of worker that the command asks about.
    """

    argv: tuple[bytes, ...]
    exe: bytes
    search: bool
    cwd: bytes
    env: tuple[bytes, ...]
    umask: int
    root: bytes
    stdin: bytes = b""
    merge: bool = False
    network: bool = False
    ids: tuple[int, ...] = ()
    limits: str = ""
    nice: int = 0
    ignored: int = 0
    terminal: tuple[int, ...] = ()
    machine: bytes = b""

    @property
    def variables(self) -> dict[bytes, bytes]:
        """The keyed variables by name, in the order of the names."""
        return dict(_keyed(self.env))

    @property
    def others(self) -> dict[str, object]:
        """The other parts by name, for a comparison."""
        return {
            "program": (self.exe, self.search),
            "umask": self.umask,
            "stdin": self.stdin,
            "streams": self.merge,
            "network": self.network,
            "user": self.ids,
            "limits": self.limits,
            "niceness": self.nice,
            "signals": self.ignored,
            "terminal": self.terminal,
            "machine": self.machine,
            "tree": self.root,
        }


def stdin_of_file(file: StdinFile, content: bytes) -> bytes:
    """Return a word for a standard input that is a file with this content: all that a job sees."""
    return msgspec.msgpack.encode(("file", file, hashlib.sha256(content).digest()))


def weak_fingerprint(identity: CommandIdentity) -> bytes:
    """Return the weak fingerprint of a command, a SHA-256."""
    parts = (
        FORMAT,
        identity.argv,
        identity.cwd,
        _keyed(identity.env),
        tuple(identity.others.values()),
    )
    return hashlib.sha256(msgspec.msgpack.encode(parts)).digest()


def strong_fingerprint(weak: bytes, path_set_id: bytes, found: Sequence[State], *, with_times: bool) -> bytes:
    """Return the fingerprint of a command whose dependencies have these states, a SHA-256."""
    return hashlib.sha256(b"%b%b%d" % (weak, path_set_id, with_times) + msgspec.msgpack.encode(found)).digest()


def recall_name(identity: CommandIdentity) -> bytes:
    """Return a name that a job keeps if one of its options changes: 16 bytes.

    The name is made of the directory, the program and the output that `-o` names. Without one, it
    is made of all words that look like files, or of all words.
    """
    words = identity.argv[1:]
    named = [word for before, word in itertools.pairwise(words) if before == b"-o"]
    files = named or [word for word in words if not word.startswith(b"-") and re.search(rb"[./]", word)]
    program = identity.argv[0].rpartition(b"/")[2] if identity.argv else identity.exe
    return digest_16((identity.root, identity.cwd, program, *(files or words)))


def digest_16(words: Iterable[bytes]) -> bytes:
    """Return 16 bytes that stand for some words."""
    return hashlib.sha256(msgspec.msgpack.encode(tuple(words))).digest()[:16]


@functools.lru_cache(maxsize=64)  # most commands of a build have the same
def _keyed(env: tuple[bytes, ...]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple(sorted(_split(word) for word in env if not _is_unkeyed(word)))


def _split(word: bytes) -> tuple[bytes, bytes]:
    name, _, text = word.partition(b"=")
    return name, text


@functools.cache
def _unkeyed_names() -> re.Pattern[bytes]:
    return re.compile(b"|".join(fnmatch.translate(pattern).encode() for pattern in UNKEYED))


def _is_unkeyed(word: bytes) -> bool:
    return _unkeyed_names().match(word.partition(b"=")[0]) is not None
