"""Start jobs as a mirror does, on a small root of their own."""

import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from termite.engine.host.native_programs import native_program

LIMIT_S = 60
IS_ROOT = os.geteuid() == 0
USERS = ["ordinary user", "root worker"] if IS_ROOT else ["ordinary user"]

PROGRAMS = """
sh cat chgrp chmod chown cp cut dd echo env false grep head hostname id kill ln ls mkdir mv ps pwd readlink rm rmdir
seq setpriv setsid sleep sort stat stty tail touch tr true tty umask unshare wc yes
"""


def is_sanitized(name: str) -> bool:
    """Return whether a native program was built with the address sanitizer (`make sanitize`)."""
    return b"__asan_init" in native_program(name).read_bytes()


def make_small_root(root: Path) -> None:
    """Make a root directory with a few programs and the libraries that they need."""
    for name in ("usr/bin", "usr/lib", "usr/lib64", "proc", "sys", "dev", "etc", "home/me"):
        (root / name).mkdir(parents=True)
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    for name in PROGRAMS.split():
        program = shutil.which(name)
        if program:
            shutil.copy(program, root / "usr/bin" / name)
            copy_libraries(program, root)


def copy_libraries(program: str, root: Path) -> None:
    """Copy the libraries of a program into the root directory."""
    words = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout.split()
    for library in (word for word in words if word.startswith("/") and Path(word).exists()):
        inside = root / ("usr" + library.removeprefix("/usr"))
        if not inside.exists():
            inside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, inside)


@dataclass(frozen=True)
class Job:
    """The output, the fields and the files of a job that has ended."""

    code: int
    out: str
    err: str
    fields: dict[str, str]
    upper: dict[str, str]
    network: str
    announced: str
    terminals: list[str]
    trace: list[tuple[int, int, str]]

    @property
    def status(self) -> int:
        """Return the exit code, or minus the number of the signal that ended the job."""
        return os.waitstatus_to_exitcode(int(self.fields["status"]))


@dataclass
class Sandboxes:
    """Sandboxes for jobs, started as one of the users that a worker may have.

    `enter` is the command that goes into a mirror's namespaces. Each job gets its own scratch
    directory, which stays until the end of the test because it holds the results of the job.
    """

    base: Path
    user: str
    enter: tuple[str, ...]
    traced: str = ""
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def program(self) -> Path:
        return self.base / "termite-sandbox"

    def sh(self, script: str, *, kill: int = 0, **config: str) -> Job:
        return self.run(["sh", "-c", script], config, kill=kill)

    def run(
        self,
        argv: list[str],
        config: Mapping[str, str] | None = None,
        *,
        env: dict[str, str] | None = None,
        tmpfs: bool = True,
        kill: int = 0,
        scratch: str = "",
        network: bool = False,
        memory: bool = False,
        lone: bool = False,
        own: str = "",
        typed: str = "",
        traced: str = "",
        extra: int = 0,
    ) -> Job:
        """Run a job as uid 1000 in the small root. `config` has fields to add or change.

        If `memory` is set, the configuration goes through a file, as a large one does. If `lone` is
        set, the process that made the sandbox is dead. `own` are the ids of `serve --own=`. `typed`
        is typed at the job's first terminal. `traced` is the mode of `serve --trace=`, or the
        mode of these sandboxes. `extra` descriptors come with the order, for which it has no use.
        """
        fields = {
            "mount": str(self.base),
            "lower": "root",
            "uid": "1000",
            "gid": "1000",
            "cwd": "/home/me",
            "umask": "022",
            "exe": argv[0],
            "search": "1",
        }
        traced = traced or self.traced
        if traced:
            fields["trace"] = "1" if traced == "exact" else "2"
        names = {"PATH": "/usr/bin:/bin"} if env is None else env
        order = {
            "program": str(self.program),
            "scratch": str(self.base / "scratch" / f"{self.user}-{self.traced}-{next(self._numbers)}{scratch}"),
            "options": [
                *(["--network"] if network else []),
                *([f"--trace={traced}"] if traced else []),
                *([f"--own={own}"] if own else []),
            ],
            "traced": bool(traced),
            "tmpfs": tmpfs,
            "kill": kill,
            "memory": memory,
            "lone": lone,
            "extra": extra,
            "typed": typed,
            "config": [
                *((fields | dict(config or {})).items()),
                *(("arg", word) for word in argv),
                *(("env", f"{name}={value}") for name, value in names.items()),
            ],
        }
        driver = subprocess.run(
            [*self.enter, "--", "/usr/bin/python3", str(self.base / "sandbox_driver.py")],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert driver.returncode == 0, driver.stderr
        result = json.loads(driver.stdout)
        pairs = [field.split("=", 1) for field in result.pop("fields").split("\0") if field]
        return Job(fields=dict(pairs), **result)


@contextmanager
def small_base(sandbox_program: Path) -> Iterator[Path]:
    """Make a directory in which an ordinary user finds all that a job needs."""
    base = Path(tempfile.mkdtemp(prefix="termite-native-", dir="/var/tmp"))
    base.chmod(0o755)
    make_small_root(base / "root")
    (base / "scratch").mkdir()
    (base / "scratch").chmod(0o1777)
    shutil.copy(sandbox_program, base / "termite-sandbox")
    for name in ("sandbox_driver.py", "forbid_calls.py"):
        shutil.copy(Path(__file__).parent / name, base)
    try:
        yield base
    finally:
        subprocess.run(["chmod", "-Rf", "u+rwX", base], check=False)
        shutil.rmtree(base)


def sandboxes_of(base: Path, user: str) -> Sandboxes:
    """Return the sandboxes of a user, who gets the files of the lower layer, as in a mirror."""
    enter = (str(base / "termite-sandbox"), "enter")
    if not IS_ROOT:
        return Sandboxes(base, user, enter)
    uid = "4321" if user == "root worker" else "1234"
    subprocess.run(["chown", "-Rh", f"{uid}:{uid}", base / "root"], check=True)
    if user == "root worker":
        return Sandboxes(base, user, (*enter, f"--uid={uid}", f"--gid={uid}"))
    become = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups")
    return Sandboxes(base, user, (*become, *enter))
