"""Read what strace says of a command: the paths that its system calls have named."""

import re

CALLS = "%file,getdents,getdents64,fchdir,openat2,bind,connect"
COMMAND = ("strace", "-f", "-y", "-qq", "-s", "8192", "-e", f"trace={CALLS}", "-e", "signal=none")
OWN = ("/proc", "/dev", "/sys")  # the worker's, which no trace has
# Calls with a second text that is no path, or that is not the path.
ONLY_FIRST = {"execve", "readlink", "readlinkat", "getxattr", "lgetxattr", "setxattr", "lsetxattr", "removexattr"}
ONLY_SECOND = {"symlink", "symlinkat"}

_LINE = re.compile(r"^(?:\[pid +\d+\] |\d+ +)?(\w+)\((.*)$")
_NAME = re.compile(r'(?:(AT_FDCWD|\d+)(?:<((?:[^>\\]|\\.)*)>)?, )?"((?:[^"\\]|\\.)*)"')
_SOCKET = re.compile(r'sun_path="((?:[^"\\]|\\.)*)"')
_DIRECTORY = re.compile(r"\d+<((?:[^>\\]|\\.)*)>")
_CWD = re.compile(r"AT_FDCWD<((?:[^>\\]|\\.)*)>")


def named_paths(log: str) -> set[str]:
    """Return the absolute paths in the log of strace, as a trace names them.

    Names that begin at a directory which strace does not tell are left out.
    """
    found = set()
    for line in log.splitlines():
        if call := _LINE.match(line):
            found |= {path for path in _paths_of(call[1], call[2]) if path}
    return {path for path in found if path not in OWN and not path.startswith(tuple(f"{own}/" for own in OWN))}


def _paths_of(name: str, arguments: str) -> list[str]:
    if name in ("getdents", "getdents64", "fchdir"):
        directory = _DIRECTORY.match(arguments)
        return [_joined("/", directory[1])] if directory and directory[1].startswith("/") else []
    if name in ("bind", "connect"):
        return [_joined("", text) for text in _SOCKET.findall(arguments) if text.startswith("/")]
    shown = arguments if name == "execve" else arguments.rpartition(" = ")[0] or arguments
    names = _NAME.findall(shown)
    names = names[:1] if name in ONLY_FIRST else names[1:2] if name in ONLY_SECOND else names
    below = "." if "RESOLVE_IN_ROOT" in arguments else ""  # an absolute name begins at the directory, too
    return [_joined(base, below + text) for _, base, text in names if text]


def _joined(base: str, text: str) -> str:
    """Return the path of a name that begins at `base`, or "" if that is not known."""
    path = _plain(text)
    if not path.startswith("/") and not base.startswith("/"):
        return ""
    parts = [] if path.startswith("/") else [part for part in _plain(base).split("/") if part]
    is_resolved = True
    for part in path.split("/"):
        if part == ".." and is_resolved:
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
            is_resolved = False
    return "/" + "/".join(parts)


def _plain(text: str) -> str:
    return (
        text.encode("latin-1", "replace").decode("unicode_escape").encode("latin-1").decode("utf-8", "surrogateescape")
    )
