"""Projects that are built to be compared or measured: their description, and how to build them.

A file examples/NAME/VARIANT.toml describes a project. All builds of a project run at the same path,
one after the other. Therefore a path that gets into an output is the same in all of them.
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
BUILD_LIMIT_S = 3600.0  # LLVM and Emacs take minutes; a build that hangs must end with an error
ENDING_S = 10.0  # a build that does not end in this time after SIGTERM is killed
TOLD_LINES = 20  # an error shows so many lines of the output of a failed command

Say = Callable[[str], None]


class ProjectError(Exception):
    """The project cannot be built, or its build is wrong; the text is for the user."""


@dataclass(frozen=True, slots=True)
class Prebuilt:
    """Prebuilt files come from a binary package and go into the tree before it is configured.

    Debian made `package` from the same source as the project. All files below the directory that
    the pattern `files` names are copied to the directory `to`.
    """

    package: str
    files: str
    to: str


@dataclass(frozen=True, slots=True)
class Project:
    """A project is the content of a file examples/NAME/VARIANT.toml.

    * `title`: the name for people.
    * `build`: command lines that run in `directory`; the first word of each is the build tool.
    * `remote`: the number of jobs of each build with termite that must run on workers, at least.
    * `package`: Debian's source package. If it is "", `given` is the environment variable that
      names the source.
    * `configure`: command lines that run in `directory` before the first build.
    * `directory`: the directory of the tree in which commands run; it is made if needed.
    * `patched`: false leaves out Debian's patches.
    * `otherwise`: a suite of Debian that has the source package if no mirror of this machine's own
      suite has it.
    * `parts`: the directories of the source that are needed; all if it is empty.
    * `needs`: programs and headers that must be installed, each with its Debian packages.
    * `differs`: patterns of files that differ between two plain builds too, each with the reason.
    * `env`: additions to the environment.
    * `prebuilt`: files that would take hours to make.
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
        """Return the command lines of a build with `-j jobs`."""
        return [line.replace("{jobs}", str(jobs)) for line in self.build]


@dataclass(frozen=True, slots=True)
class Place:
    """A place has the directories in which a project is built."""

    tree: Path  # all builds run here
    saved: Path  # a copy of the tree as it was configured
    logs: Path

    @staticmethod
    def below(base: Path) -> "Place":
        """Return the place whose directories are below `base`."""
        return Place(base / "tree", base / "saved", base / "logs")

    @property
    def state(self) -> Path:
        """The directory of the masters' logs."""
        return self.logs / "state"


def read_project(path: Path) -> Project:
    """Read a project from its file. Raise ProjectError if the file is wrong."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text()), Project)
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ProjectError(f"{path.name}: {error}") from error


def missing_needs(project: Project) -> dict[str, str]:
    """Return the needs that are not installed, each with the Debian packages that have it."""

    def is_there(need: str) -> bool:
        return Path(need).exists() if need.startswith("/") else shutil.which(need) is not None

    return {need: packages for need, packages in project.needs.items() if not is_there(need)}


def check_needs(project: Project) -> None:
    """Raise ProjectError with the names of the missing Debian packages, if any are missing."""
    missing = [f"{need} (Debian: {package})" for need, package in missing_needs(project).items()]
    if missing:
        raise ProjectError("needs " + ", ".join(missing))


def unpack(project: Project, place: Place, sources: Path, rules: Path | None) -> None:
    """Fetch the source, and make the tree a fresh copy of it with the rules file `rules` in it."""
    source = _source(project, sources)
    shutil.rmtree(place.tree.parent, ignore_errors=True)
    place.state.mkdir(parents=True)
    for part in project.parts or (".",):
        shutil.copytree(source / part, place.tree / part, symlinks=True)
    for prebuilt in project.prebuilt:
        files = fetch_binary(prebuilt.package, sources, project.package, otherwise=project.otherwise)
        (directory,) = files.glob(prebuilt.files)
        # Plain copyfile gives the files the present time: they must be newer than their sources.
        shutil.copytree(directory, place.tree / prebuilt.to, dirs_exist_ok=True, copy_function=shutil.copyfile)
    if rules is not None and rules.exists():
        shutil.copy(rules, place.tree / ".termite-localrc")


def configure(project: Project, place: Place, say: Say) -> None:
    """Run the project's configure commands without termite, in its directory."""
    (place.tree / project.directory).mkdir(exist_ok=True)
    for number, line in enumerate(project.configure):
        say(f"configuring: {line}")
        run(shlex.split(line.replace("{checkout}", str(CHECKOUT))), project, place, f"configure-{number}")


def _source(project: Project, sources: Path) -> Path:
    if project.package:
        return fetch_source(project.package, sources, patched=project.patched, otherwise=project.otherwise)
    given = os.environ.get(project.given)
    if not given:
        raise ProjectError(f"the environment variable {project.given} must name the source of {project.title}")
    return Path(given).resolve()


def save(place: Place) -> None:
    """Save the tree as it is, for `put_back`."""
    shutil.copytree(place.tree, place.saved, symlinks=True)
    put_back(place.saved, place.tree)  # sets the times of directories too


def run(
    command: Sequence[str],
    project: Project,
    place: Place,
    name: str,
    *,
    env: Mapping[str, str] | None = None,
    limit_s: float = BUILD_LIMIT_S,
) -> Counter[str]:
    """Run a command with its output in the log `name`; count the lines that termite printed.

    Raise ProjectError if the command fails or does not end in time.
    """
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
    """Return the error of a command line that failed; `said` has the lines of its output."""
    return ProjectError("\n".join([f"{line} failed ({code}), see {log}:", *said[-TOLD_LINES:]]))


def start(
    command: Sequence[str], project: Project, place: Place, name: str, *, env: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """Start a command of this project in a session of its own, and append its output to a log."""
    directory = place.tree / project.directory
    with (place.logs / f"{name}.log").open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=directory,
            env=build_environment(place) | {"PWD": str(directory)} | project.env | dict(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # The scheduler divides a busy machine among sessions, and the daemons have their own
            # too.
            start_new_session=True,
        )


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process that leads a process group, whatever its state is, and the rest of its group.

    If the process has already ended with 0, its group is left alone.
    """
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
    """Return our environment without the variables of a make that runs us, and with termite's.

    TERMITE_SHORT=0 lets a master that the build starts send short commands to its worker every
    time, because the outputs of workers are to be compared.
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
    """Return the answer of `termite-ctl status --json`.

    If no master answers, return {} with `may_fail`, and raise ProjectError without it.
    """
    done = ctl(place, "status", "--json")
    if done.returncode and not may_fail:
        raise ProjectError(f"the master does not answer: {done.stderr.strip()}")
    return {} if done.returncode else cast(dict[str, Any], msgspec.json.decode(done.stdout))


def ctl(place: Place, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run termite-ctl in the tree."""
    command = [str(COMMANDS / "termite-ctl"), *arguments]
    return subprocess.run(
        command, cwd=place.tree, env=build_environment(place), capture_output=True, text=True, check=False, timeout=60
    )


def job_counts(status: Mapping[str, Any]) -> Counter[str]:
    """Return the growing counts of a status: subtract two of them to get the counts between."""
    if not status:
        return Counter()
    counts = {name: count for name, count in status["jobs"].items() if isinstance(count, int) and name != "running"}
    fallbacks = sum(status["fallbacks"].values())
    return Counter(
        counts | {"fallbacks": fallbacks, "requests": status["fuse_requests"], "dropped": status["dropped_writes"]}
    )


def mirrors_below(pid: int) -> list[int]:
    """Return the mirrors below a worker, or below a master that has a worker inside."""
    below = [pid]
    for parent in below:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            below += map(int, task.read_text().split())
    return [pid for pid in below if _is_mirror(Path(f"/proc/{pid}/cmdline").read_bytes())]


def _is_mirror(cmdline: bytes) -> bool:
    # The program that makes a mirror's namespaces (`enter`) has the mirror's command in its own.
    return b"\0termite.fuse.mirror\0" in cmdline and b"\0enter\0" not in cmdline


def peak_bytes(pid: int) -> int:
    """Return the peak of a process's resident memory."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0
