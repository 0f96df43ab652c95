"""The files of a release install on a bare machine, work there, and are reproducible.

All tests are in one file, because a parallel run would build once for each file.
"""

import base64
import configparser
import csv
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from packing.debian_package import SOURCES
from packing.product_tree import copy_packages
from packing.programs import is_elf, needed_libraries
from packing.release import PYTHON
from termite import __version__
from tests.dist.conftest import MakePlace
from tests.e2e.cluster import HOST, Daemon, daemon, free_port, new_secret, new_tree
from tests.e2e.places import CHECKOUT, IS_ROOT, Place
from tests.e2e.waiting import wait_until
from tests.shown_commands import shown_commands

pytestmark = pytest.mark.timeout(300)  # the first test of a run waits for both builds
needs_dpkg = pytest.mark.skipif(shutil.which("dpkg") is None, reason="dpkg is not installed")
EXPOSURES = {"termite-coordinator.service": 15, "termite-worker.service": 62}  # tenths; systemd-analyze knows 0 to 100
SHELL_TOOLS = ("sh", "dirname", "readlink", "tar", "xz")  # the last two unpack the bundle
INSTALL_PAGE = CHECKOUT / "docs" / "use" / "install.md"
PROGRAMS = {"termite", "termite-make", "termite-sandbox", "libtermite-exec.so"}


def only(directory: Path, pattern: str) -> Path:
    """Return the one file of a build that matches."""
    (found,) = directory.glob(pattern)
    return found


def test_two_builds_are_equal(builds: tuple[Path, Path]) -> None:
    first, second = ({path.name: digest(path) for path in directory.iterdir()} for directory in builds)
    assert first == second
    assert {Path(name).suffix for name in first} == {".deb", ".whl", ".xz"}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_wheel_has_the_native_programs_and_says_which_glibc_they_need(builds: tuple[Path, Path]) -> None:
    path = only(builds[0], "*.whl")
    name, version, *_, platform = path.stem.split("-")
    assert (name, version) == ("termite", __version__)
    assert platform.startswith("manylinux_2_")
    with zipfile.ZipFile(path) as wheel:
        contents = {entry: wheel.read(entry) for entry in wheel.namelist()}
    assert {f"termite-{version}.data/scripts/{program}" for program in PROGRAMS} <= contents.keys()
    assert f"Tag: py3-none-{platform}\n" in contents[f"termite-{version}.dist-info/WHEEL"].decode()
    needed = [line for content in contents.values() for line in glibc_versions(content)]
    assert max(needed) == tuple(map(int, platform.split("_")[1:3]))
    recorded = {row[0]: row[1] for row in csv.reader(contents[f"termite-{version}.dist-info/RECORD"].decode().split())}
    assert recorded.keys() == contents.keys()
    for entry, content in contents.items():
        hashed = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        assert recorded[entry] in ("", f"sha256={hashed}")


def glibc_versions(content: bytes) -> list[tuple[int, ...]]:
    """Return the versions of glibc that the symbols of a shared library ask for."""
    is_dynamic = content[:4] == b"\x7fELF" and b"\0libc.so.6\0" in content
    words = [word for word in content.split(b"\0") if word.startswith(b"GLIBC_2.")] if is_dynamic else []
    return [tuple(map(int, word[6:].split(b".")[:2])) for word in words]


def test_a_wheel_in_a_new_venv_builds_with_a_worker_of_its_own(
    builds: tuple[Path, Path], make_place: MakePlace
) -> None:
    with make_place("ordinary") as where:
        venv = where.base / "venv"
        subprocess.run([f"/usr/bin/{PYTHON}", "-m", "venv", "--without-pip", str(venv)], check=True)
        copy_packages(venv / "lib" / PYTHON / "site-packages")
        # Without --no-deps: pip makes sure that the requirements are there.
        install = ["install", "-q", "--disable-pip-version-check", "--no-index", "--no-compile"]
        pip = [sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python3")]
        subprocess.run([*pip, *install, str(only(builds[0], "*.whl"))], check=True)
        tree = new_tree(where)
        tree.write("Makefile", "out: in\n\tcp in out\n")
        tree.write("in", "content\n")
        env = {"TERMITE_LOCAL": "never", "TERMITE_SHORT": "0"}
        try:
            made = where.run([str(venv / "bin" / "termite-make")], tree.path, env=env)
            assert made.code == 0, made
            asked = where.run([str(venv / "bin" / "termite-ctl"), "jobs"], tree.path)
            assert b"cp in out" in asked.stdout, asked
        finally:
            where.run([str(venv / "bin" / "termite-ctl"), "shutdown"], tree.path)
        assert (tree.path / "out").read_text() == "content\n"


def prepare_bundle(bundle: Path, where: Place) -> Path:
    """Copy a bundle to a directory of a place's user. A place has a /tmp of its own."""
    directory = where.base / "any directory"
    directory.mkdir()
    shutil.copyfile(bundle, directory / bundle.name)
    (directory / bundle.name).chmod(0o644)
    if where.uid != os.geteuid():
        os.chown(directory, where.uid, where.uid)
    return directory


def bare_path(where: Place) -> list[str]:
    """Return the words that start a program with a PATH on which there is next to nothing."""
    tools = where.base / "tools"
    tools.mkdir()
    for name in SHELL_TOOLS:
        (tools / name).symlink_to(f"/usr/bin/{name}")
    return ["/usr/bin/env", f"PATH={tools}"]


@contextmanager
def started(where: Place, top: Path, program: list[str], *words: str) -> Iterator[Daemon]:
    """Run a daemon of the bundle until the end of the block."""
    name = Path(program[-1]).name
    log = where.base / f"{name}.log"
    with log.open("wb") as output:
        process = where.start([*program, *words], top, stdout=output.fileno(), stderr=output.fileno())
    running = Daemon(where, name, process, log)
    try:
        running.wait_for(f"{name}: listens")
        yield running
    finally:
        assert running.stop() == 0, running.text()


def test_a_bundle_works_anywhere_without_compiler_and_pip(builds: tuple[Path, Path], make_place: MakePlace) -> None:
    with make_place("ordinary") as where:
        directory, bare = prepare_bundle(only(builds[0], "termite-*.tar.xz"), where), bare_path(where)
        (shown,) = [block for block in shown_commands(INSTALL_PAGE.read_text()) if "tar -xJf" in block.script]
        asked = where.run([*bare, "sh", "-ec", shown.script], directory)
        top = directory / f"termite-{__version__}"
        assert asked.code in (0, 104) and b"a job ran in" in asked.stdout, asked
        secret, port = str(new_secret(where)), str(free_port())
        address = f"{HOST}:{port}"
        flags = ("-secret", secret, "-listen", HOST)
        tree = new_tree(where)
        tree.write("x.c", "int x = 1;\n")
        with (
            started(where, top, [*bare, "./termite-coordinator"], *flags, "-port", port),
            started(where, top, [*bare, "./termite-worker"], *flags, "-port", "0", "-coordinator", address),
            daemon(where, "termite-master", "-secret", secret, "-coordinator", address, cwd=tree.path),
        ):
            wait_until(lambda: len(tree.status()["known_workers"]) == 1, "the master knows the worker of the bundle")
            done = tree.termite("gcc", "-c", "x.c", env={"TERMITE_LOCAL": "never", "TERMITE_SHORT": "0"})
            assert done.code == 0, done
            assert [lease["jobs"] for lease in tree.status()["workers"]] == [1]
        assert tree.plain("gcc", "-c", "-o", "y.o", "x.c").code == 0
        assert (tree.path / "x.o").read_bytes() == (tree.path / "y.o").read_bytes()


def test_a_bundle_needs_only_libraries_of_every_system(builds: tuple[Path, Path], tmp_path: Path) -> None:
    with tarfile.open(only(builds[0], "termite-*.tar.xz")) as archive:
        archive.extractall(tmp_path)
        assert {(entry.uid, entry.gid, entry.mode & 0o022) for entry in archive if not entry.issym()} == {(0, 0, 0)}
    top = tmp_path / f"termite-{__version__}"
    files = [path for path in top.rglob("*") if path.is_file() and not path.is_symlink() and is_elf(path)]
    inside = {path.name for path in files}
    assert {name for path in files for name in needed_libraries(path)} - inside <= {
        *("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "libgcc_s.so.1", "ld-linux-x86-64.so.2"),
        "ld-linux-aarch64.so.1",
    }
    # No file knows where the bundle was made, and each link leads to Python or into the bundle.
    assert [path for path in top.rglob("*") if path.is_file() and str(CHECKOUT).encode() in path.read_bytes()] == []
    links = {str(path.readlink()) for path in top.rglob("*") if path.is_symlink()}
    assert {link for link in links if link.startswith(("/", ".."))} == {f"/usr/bin/{PYTHON}"}
    # Without Python, each command says what is missing.
    (top / "bin" / "python3").unlink()
    (top / "bin" / "python3").symlink_to("/usr/bin/python3.0")
    said = subprocess.run([top / "termite-worker"], capture_output=True, text=True, check=False)
    assert (said.returncode, f"there is no /usr/bin/{PYTHON}" in said.stderr) == (100, True), said


def unit_settings(name: str) -> dict[str, str]:
    """Return the settings of a unit's section Service. The last counts of several equal ones."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((SOURCES / name).read_text())
    return dict(parser["Service"])


def files_below(root: Path) -> dict[str, bytes]:
    """Return each file and directory below a root, but for the notes of dpkg and backups."""
    paths = [path for path in root.rglob("*") if not path.is_relative_to(root / "var/lib/dpkg")]
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else b""
        for path in paths
        if not path.name.endswith("-") and path.name != ".pwd.lock"
    }


def assert_can_be_sent(tree: Path, cache: Path) -> None:
    """Check that an installed termite packs itself as a bundle for `termite-ctl add`."""
    script = "from termite.cli.ssh_hosts.bundle_source import find_bundle; print(find_bundle(None).path)"
    words, env = [str(tree / "bin" / "python3"), "-c", script], {**os.environ, "XDG_CACHE_HOME": str(cache)}
    said = subprocess.run(words, capture_output=True, text=True, check=True, env=env, cwd="/")
    with tarfile.open(said.stdout.strip()) as archive:
        packed = {entry.name.partition("/")[2] for entry in archive}
    assert packed == {str(path.relative_to(tree)) for path in tree.rglob("*")}


@needs_dpkg
def test_a_package_installs_into_a_bare_root_and_purge_leaves_nothing(
    builds: tuple[Path, Path], tmp_path: Path
) -> None:
    root, notes = tmp_path / "root", tmp_path / "root/var/lib/dpkg"
    for directory in ("etc/systemd/system/multi-user.target.wants", "run", "var/cache", "var/lib"):
        (root / directory).mkdir(parents=True)
    for directory in ("info", "updates"):
        (notes / directory).mkdir(parents=True)
    (notes / "status").touch()
    users = {"passwd": "root:x:0:0::/:/bin/sh", "group": "root:x:0:", "shadow": "root:*:1::::::", "gshadow": "root:*::"}
    for name, line in users.items():
        (root / "etc" / name).write_text(f"{line}\n")
    before = files_below(root)
    words = ["dpkg", f"--root={root}", "--force-script-chrootless", "--force-depends", f"--log={tmp_path}/log"]
    dpkg = words if IS_ROOT else ["fakeroot", *words]
    subprocess.run([*dpkg, "--install", str(only(builds[0], "*.deb"))], check=True, capture_output=True)

    commands = {path.name for path in (root / "usr/bin").iterdir()}
    assert {"termite", "termite-make", "termite-ctl", "termite-worker", "termite-coordinator"} <= commands
    assert commands.isdisjoint({"termite-sandbox", "termite-front-end", "python3"})
    for name in ("termite-ctl", "termite-worker"):
        said = subprocess.run([root / "usr/bin" / name, "--version"], capture_output=True, text=True, check=True)
        assert said.stdout.strip() == f"{name} {__version__}"
    assert_can_be_sent(root / "usr/lib/termite", tmp_path / "cache")
    assert "termite:" in (root / "etc/passwd").read_text()
    for name in ("usr/share/man/man1/termite-worker.1.gz", "usr/share/bash-completion/completions/termite-ctl"):
        assert (root / name).is_file()
    (root / "etc/termite/secret.txt").write_text("made by the administrator")
    (root / "var/cache/termite").mkdir()
    (root / "etc/systemd/system/multi-user.target.wants/termite-worker.service").symlink_to("/nowhere")

    subprocess.run([*dpkg, "--remove", "termite"], check=True, capture_output=True)
    assert (root / "etc/termite/secret.txt").exists(), "only a purge removes settings"
    subprocess.run([*dpkg, "--purge", "termite"], check=True, capture_output=True)
    assert files_below(root) == before


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_units_are_valid_and_hardened(builds: tuple[Path, Path], tmp_path: Path) -> None:
    units = tmp_path / "usr/lib/systemd/system"
    shutil.copytree("/usr/lib/systemd/system", units, symlinks=True)
    subprocess.run(["dpkg-deb", "--extract", str(only(builds[0], "*.deb")), str(tmp_path)], check=True)
    shutil.copyfile("/usr/bin/install", tmp_path / "usr/bin/install")
    (tmp_path / "usr/bin/install").chmod(0o755)
    verify = ["systemd-analyze", "verify", f"--root={tmp_path}", "--man=no", *EXPOSURES]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if "termite" in line]
    assert (done.returncode, complaints) == (0, []), done
    for unit, most in EXPOSURES.items():
        words = ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={most}"]
        judged = subprocess.run([*words, str(units / unit)], capture_output=True, text=True, check=False)
        assert judged.returncode == 0, judged.stdout[-300:]
    assert {unit_settings(unit)["Type"] for unit in EXPOSURES} == {"notify"}


@needs_dpkg
@pytest.mark.needs_root("gives up capabilities, and makes the root file system read-only")
def test_a_worker_runs_jobs_with_the_rights_of_its_unit_and_a_stop_drains_it(
    builds: tuple[Path, Path], make_place: MakePlace
) -> None:
    """The unit's system call filter is not tried, because only systemd makes it."""
    unit = unit_settings("termite-worker.service")
    capabilities = unit["CapabilityBoundingSet"].lower().replace("cap_", "+").replace(" ", ",")
    assert (unit["NoNewPrivileges"], unit["ProtectSystem"], unit["KillMode"]) == ("yes", "strict", "mixed")
    confined = 'mount -o remount,bind,ro / && ! touch /forbidden 2>/dev/null && exec "$@"'
    rights = ["unshare", "--mount", "sh", "-c", confined, "sh"]
    rights += ["setpriv", "--no-new-privs", f"--bounding-set=-all,{capabilities}"]
    with make_place("root") as where, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        package = where.base / "package"
        subprocess.run(["dpkg-deb", "--extract", str(only(builds[0], "*.deb")), str(package)], check=True)
        systemd.bind(str(where.base / "notify"))
        systemd.settimeout(60)
        program = [*rights, "env", f"NOTIFY_SOCKET={where.base}/notify", str(package / "usr/bin/termite-worker")]
        secret, port = str(new_secret(where)), str(free_port())
        address, tree = f"{HOST}:{port}", new_tree(where)
        own = ("-secret", secret, "-coordinator", address, "-port", "0", "-cachedir", str(where.base / "cache"))
        with (
            daemon(where, "termite-coordinator", "-secret", secret, "-port", port, "-listen", HOST),
            started(where, where.base, program, *own) as worker,
            daemon(where, "termite-master", "-secret", secret, "-coordinator", address, cwd=tree.path),
        ):
            assert systemd.recv(500).startswith(b"READY=1\nSTATUS=listens on ")
            wait_until(lambda: len(tree.status()["known_workers"]) == 1, "the master knows the worker of the package")
            argv = [where.termite("termite"), "sh", "-c", "read word; echo $word >out"]
            env = {"TERMITE_LOCAL": "never", "TERMITE_SHORT": "0"}
            job = where.start(argv, tree.path, env=env, stdin=subprocess.PIPE)
            wait_until(lambda: [lease["running"] for lease in tree.status()["workers"]] == [1], "the job runs")
            worker.process.send_signal(signal.Signals[unit["KillSignal"]])
            worker.wait_for("worker-drained")
            assert worker.process.poll() is None
            said = job.communicate(b"done\n", timeout=60)
            assert job.returncode == 0, said
            assert worker.process.wait(60) == 0
        assert (tree.path / "out").read_text() == "done\n"
