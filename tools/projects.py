"""Projects that are built to be compared or measured: what examples/NAME/VARIANT.toml says, and how a build is run.

All builds of a project happen at the same path, one after the other: a path that gets into an output is then the same
in all of them.
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec

from sources import fetch_binary, fetch_source
from trees import put_back

CHECKOUT = Path(__file__).resolve().parent.parent
COMMANDS = CHECKOUT / ".venv" / "bin"
BUILD_LIMIT_S = 3600.0  # LLVM and Emacs take minutes; a build that hangs must say so
ENDING_S = 10.0  # a build that does not end by a signal is killed
TOLD_LINES = 20  # of a command that failed

Say = Callable[[str], None]


class ProjectError(Exception):
    """The project cannot be built, or is not what it should be; the text is for a person."""


@dataclass(frozen=True, slots=True)
class Prebuilt:
    """Files of a binary `package` of Debian, made from the same source, that go into the tree before it is configured:
    all below the directory that the pattern `files` names, to the directory `to`."""

    package: str
    files: str
    to: str


@dataclass(frozen=True, slots=True)
class Project:
    """What examples/NAME/VARIANT.toml says.

    `package`: Debian's source package; where there is none, `given`: the environment variable that names the source.
    `parts`: of the source, all if empty. `configure` and `build` are command lines, run in `directory`; the
    first word of one in `build` is the build tool. `differs`: patterns of files in which two plain builds differ too,
    each with the reason. `needs`: programs and headers that must be installed, each with its Debian package.
    `remote`: so many jobs of each build with termite must run on workers. `otherwise`: a suite of Debian's from which
    the source package is taken where this machine's own has it in no mirror. `prebuilt`: what would take hours to make.
    """

    title: str
    build: tuple[str, ...]
    remote: int
    package: str = ""
    given: str = ""
    configure: tuple[str, ...] = ()
    directory: str = "."
    patched: bool = True
    otherwise: str = ""
    parts: tuple[str, ...] = ()
    needs: dict[str, str] = field(default_factory=dict)
    differs: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    prebuilt: tuple[Prebuilt, ...] = ()

    def lines(self, jobs: int) -> list[str]:
        """The command lines of a build with `-j jobs`."""
        return [line.replace("{jobs}", str(jobs)) for line in self.build]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a project is built."""

    tree: Path  # all builds
    saved: Path  # the tree as it was configured
    logs: Path

    @staticmethod
    def below(base: Path) -> "Place":
        return Place(base / "tree", base / "saved", base / "logs")

    @property
    def state(self) -> Path:
        """Where masters log."""
        return self.logs / "state"


def read_project(path: Path) -> Project:
    """From its file."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text()), Project)
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ProjectError(f"{path.name}: {error}") from error


def missing_needs(project: Project) -> dict[str, str]:
    """Programs and headers that are not there, each with the Debian packages that have it."""

    def is_there(need: str) -> bool:
        return Path(need).exists() if need.startswith("/") else shutil.which(need) is not None

    return {need: packages for need, packages in project.needs.items() if not is_there(need)}


def check_needs(project: Project) -> None:
    """ProjectError with the Debian packages that are missing."""
    missing = [f"{need} (Debian: {package})" for need, package in missing_needs(project).items()]
    if missing:
        raise ProjectError("needs " + ", ".join(missing))


def unpack(project: Project, place: Place, sources: Path, rules: Path | None) -> None:
    """A fresh copy of the source, with our rules in it."""
    source = _source(project, sources)
    shutil.rmtree(place.tree.parent, ignore_errors=True)
    place.state.mkdir(parents=True)
    for part in project.parts or (".",):
        shutil.copytree(source / part, place.tree / part, symlinks=True)
    for prebuilt in project.prebuilt:
        files = fetch_binary(prebuilt.package, sources, project.package, otherwise=project.otherwise)
        (directory,) = files.glob(prebuilt.files)
        # With the time of now, because they are newer than what they were made from.
        shutil.copytree(directory, place.tree / prebuilt.to, dirs_exist_ok=True, copy_function=shutil.copyfile)
    if rules is not None and rules.exists():
        shutil.copy(rules, place.tree / ".termite-localrc")


def configure(project: Project, place: Place, say: Say) -> None:
    """Plainly, in the project's directory."""
    (place.tree / project.directory).mkdir(exist_ok=True)
    for number, line in enumerate(project.configure):
        say(f"configuring: {line}")
        run(shlex.split(line.replace("{checkout}", str(CHECKOUT))), project, place, f"configure-{number}")


def _source(project: Project, sources: Path) -> Path:
    if project.package:
        return fetch_source(project.package, sources, patched=project.patched, otherwise=project.otherwise)
    given = os.environ.get(project.given)
    if not given:
        raise ProjectError(f"{project.given} in the environment must name the source of {project.title}")
    return Path(given).resolve()


def save(place: Place) -> None:
    """Remember the tree as it is, for `put_back`."""
    shutil.copytree(place.tree, place.saved, symlinks=True)
    put_back(place.saved, place.tree)  # the times of directories as well


def run(
    command: Sequence[str],
    project: Project,
    place: Place,
    name: str,
    *,
    env: Mapping[str, str] | None = None,
    limit_s: float = BUILD_LIMIT_S,
) -> Counter[str]:
    """Run it with its output in a log; what termite said in it, with numbers and names left out."""
    log = place.logs / f"{name}.log"
    at = log.stat().st_size if log.exists() else 0
    process = start(command, project, place, name, env=env)
    try:
        code = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        raise ProjectError(f"{command[0]} did not end in {limit_s:.0f} s: see {log}") from None
    finally:
        end(process)
    said = log.read_bytes()[at:].decode(errors="replace").splitlines()
    if code:
        raise failed(shlex.join(command), code, log, said)
    return Counter(line for line in said if line.startswith("termite: "))


def failed(line: str, code: int, log: Path, said: Sequence[str]) -> ProjectError:
    """For a command line that ended with an error; `said` are lines of its log."""
    return ProjectError("\n".join([f"{line} failed ({code}), see {log}:", *said[-TOLD_LINES:]]))


def start(
    command: Sequence[str], project: Project, place: Place, name: str, *, env: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """Start it as a build of this project, in a process group of its own, with its output at the end of a log."""
    directory = place.tree / project.directory
    with (place.logs / f"{name}.log").open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=directory,
            env=build_environment(place) | {"PWD": str(directory)} | project.env | dict(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # Of its own, as a daemon's is: the scheduler shares a busy machine out among sessions.
            start_new_session=True,
        )


def end(process: "subprocess.Popen[bytes]") -> None:
    """A process with a group of its own, whatever its state is. What is left in that of a killed one ends as well."""
    if process.poll() == 0:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(ENDING_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def build_environment(place: Place) -> dict[str, str]:
    """Ours without what a make that runs us has put there for its own children.

    A master that is started here sends short commands to its worker every time: what is compared is what that makes.
    """
    ours = {name: text for name, text in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "TERMITE_"))}
    return ours | {
        "TERMITE_ROOT": str(place.tree),
        "TERMITE_SHORT": "0",
        "TERMITE_VERBOSE": "1",
        "XDG_STATE_HOME": str(place.state),
    }


# -- asking the master ------------------------------------------------------------------------------------------------


def status(place: Place, may_fail: bool = False) -> dict[str, Any]:
    """What `termite-ctl status --json` says; nothing where there is no master and that `may_fail`."""
    done = ctl(place, "status", "--json")
    if done.returncode and not may_fail:
        raise ProjectError(f"there is no master to ask: {done.stderr.strip()}")
    return {} if done.returncode else cast(dict[str, Any], msgspec.json.decode(done.stdout))


def ctl(place: Place, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(COMMANDS / "termite-ctl"), *arguments]
    return subprocess.run(
        command, cwd=place.tree, env=build_environment(place), capture_output=True, text=True, check=False, timeout=60
    )


def job_counts(status: Mapping[str, Any]) -> Counter[str]:
    """Of a status: what is subtracted from a later one to get what happened between."""
    if not status:
        return Counter()
    counts = {name: count for name, count in status["jobs"].items() if isinstance(count, int) and name != "running"}
    fallbacks = sum(status["fallbacks"].values())
    return Counter(
        counts | {"fallbacks": fallbacks, "requests": status["fuse_requests"], "dropped": status["dropped_writes"]}
    )


def mirrors_below(pid: int) -> list[int]:
    """The mirror processes among the descendants of a worker, or of a master with a worker inside."""
    below = [pid]
    for parent in below:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            below += map(int, task.read_text().split())
    return [pid for pid in below if _is_mirror(Path(f"/proc/{pid}/cmdline").read_bytes())]


def _is_mirror(cmdline: bytes) -> bool:
    """And not the program that made its namespaces, which names it too."""
    return b"\0termite.fuse.mirror\0" in cmdline and b"\0enter\0" not in cmdline


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had resident."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0
