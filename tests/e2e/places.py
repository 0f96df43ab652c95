"""Make places where a program can run: a user and a set of namespaces of its own.

A holder process keeps the namespaces alive while its standard input is open. The namespaces end
with the test run, however the run ends. `nsenter` and `setpriv` put a program into a place. They
execute each other, so the process that is started is the program itself, and signals reach it.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent.parent
COMMANDS = Path(sys.executable).parent
PLACE_SCRIPT = Path(__file__).with_name("place.sh")
ORDINARY_UID = 61000  # outside of the ranges of distributions; place.sh gives it a name
IS_ROOT = os.geteuid() == 0
START_LIMIT_S = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """The exit code and the output of a program that has ended."""

    code: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True)
class Place:
    """A user and namespaces for programs.

    `base` is the directory of the place. It has the same path inside and outside.
    """

    enter: tuple[str, ...]  # nsenter with the namespaces; empty: here
    become: tuple[str, ...]  # setpriv with the user; empty: who we are
    uid: int
    base: Path
    env: Mapping[str, str]
    holder: int = 0  # the pid that keeps the namespaces

    def command(self, argv: Sequence[str | bytes], cwd: Path | str) -> list[str | bytes]:
        if not self.enter:
            return ["env", "-C", os.fspath(cwd), *self.become, *argv]
        return [*self.enter, f"--wdns={os.fspath(cwd)}", "--", *self.become, *argv]

    def start(
        self,
        argv: Sequence[str | bytes],
        cwd: Path | str,
        *,
        env: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        umask: int = 0o022,
    ) -> "subprocess.Popen[bytes]":
        """Start a program in its own session. A test can signal its group, as Ctrl-C does."""
        return subprocess.Popen(
            self.command(argv, cwd),
            env={**self.env, **(env or {})},
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            umask=umask,
        )

    def run(
        self,
        argv: Sequence[str | bytes],
        cwd: Path | str,
        *,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        merge: bool = False,
        umask: int = 0o022,
        timeout_s: float = 90,
    ) -> Outcome:
        """Run a program to its end.

        `stdin` comes through a pipe. If it is None, the program reads /dev/null. If `merge` is set,
        stderr goes where stdout goes.
        """
        process = self.start(
            argv,
            cwd,
            env=env,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stderr=subprocess.STDOUT if merge else subprocess.PIPE,
            umask=umask,
        )
        try:
            stdout, stderr = process.communicate(stdin, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, stderr = process.communicate()
            raise AssertionError(f"{argv!r} hangs; so far: {stdout!r} {stderr!r}") from None
        return Outcome(process.returncode, stdout, stderr or b"")

    def termite(self, name: str) -> str:
        return str(COMMANDS / name)

    def word(self, name: str) -> str:
        """Return the path of a command, quoted for a shell, because it may have spaces."""
        return shlex.quote(self.termite(name))


@contextmanager
def place(kind: str, base: Path, mark: str, *, network: bool = False) -> Iterator[Place]:
    """Make a place of one of the kinds of place.sh, in the new directory `base`.

    Without root, programs run as the user who runs the tests, in no namespaces of their own.
    """
    uid = ORDINARY_UID if kind in ("ordinary", "closed-fuse") else 0
    base.mkdir(parents=True)
    (base / "home").mkdir()
    if not IS_ROOT:
        yield Place((), (), os.geteuid(), base, environment(base, mark))
        return
    for path in (base, base / "home"):
        os.chown(path, uid, uid)
    become = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups") if uid else ()
    unshare = ["unshare", "--mount", "--propagation=private", *(["--net"] if network else [])]
    script = ["sh", str(PLACE_SCRIPT), kind, str(base), str(CHECKOUT), str(uid)]
    with held([*unshare, *script]) as pid:
        enter = ("nsenter", f"--mount=/proc/{pid}/ns/mnt", *([f"--net=/proc/{pid}/ns/net"] if network else []))
        yield Place(enter, become, uid, base, environment(base, mark), pid)


@contextmanager
def held(command: Sequence[str]) -> Iterator[int]:
    """Run a holder: a program that says "ready" and ends when its standard input does."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/") as holder:
        assert holder.stdin is not None and holder.stdout is not None
        try:
            line = holder.stdout.readline()
            assert line == b"ready\n", f"{command} could not be prepared"
            yield holder.pid
        finally:
            holder.stdin.close()
            holder.wait(START_LIMIT_S)


def environment(base: Path, mark: str) -> dict[str, str]:
    """Return a small, known environment.

    leftovers.py recognises each process of the place by E2E_MARK.
    """
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": str(base / "home"),
        "USER": "builder",
        "LANG": "C.UTF-8",
        "E2E_MARK": mark,
    }
