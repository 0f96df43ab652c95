"""Ten builds as their users do them: plain and through termite, every file compared.

Each runs as an ordinary user and as root. Both builds of a project use the same path, one after the
other. At least 80 % of the compile and link commands must run on a worker, because a local build
would be equal without any merit.

The compilers in PATH are wrappers that note each call in a directory that jobs cannot see.
Therefore the plain build tells how many calls there are, and the other one how many ran here. The
probes of a configure script do not count. go finds its own compiler by a path, so there the
commands that it prints are compared with the master's counter.
"""

import dataclasses
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sources import SourceError, fetch_source
from tests.e2e import foreign_projects as projects
from tests.e2e.conftest import USERS, MakePlace
from tests.e2e.places import CHECKOUT, COMMANDS, IS_ROOT, Outcome, Place

LEAST_REMOTE = 0.8
LIMIT_S = 240
PYTHON = "/usr/bin/python3"  # what every user can read; that of the test may be in a private home
LISTING = Path(__file__).with_name("tree_listing.py")
COMPILERS = ("gcc", "cc", "g++", "c++", "gcc-12", "x86_64-linux-gnu-gcc-12")
# Of a team that shares a directory. Only root can be in a group that nobody else has.
GROUP = 61001 if IS_ROOT else os.getgid()

# Names that contain the time, or the way in which a build was started, in every plain build too.
IGNORED = r"(^|/)(config\.log|debugfs\.log|\.rustc_info\.json|.*\.buildinfo|.*\.changes|.*\.pyc|invoked\.timestamp)$"

CALLS = "home/.ccache"  # a cache, which every job finds empty
WRAPPER = """#!/bin/sh
[ ! -w {calls} ] || echo " $* " >>{calls}/$$
exec {program} "$@"
"""
# The words of a call that compiles or links, and those of a call that only asks for something.
COUNTED = (" -c ", " -o ", " --crate-name ")
PROBES = ("conftest", " --crate-name ___ ", "/dev/null ", "/cgo-gcc-input-")

# make, go and cargo are the tools of the plain build or of termite.
NAMES = {"make": ("make", "termite-make"), "go": ("go", "termite-build go"), "cargo": ("cargo", "termite-build cargo")}


@dataclass(frozen=True)
class Foreign:
    """A project with the shell script that builds it in its directory `tree`.

    `files` are copied to the directory `top` of each build, which is compared. `prepare` is a shell
    script that runs in `tree` before. `needs` are programs or files by the way to get them.
    """

    script: str
    files: Mapping[str, str] = field(default_factory=dict)
    prepare: str = ""
    tree: str = "project"
    top: str = "{base}/top"
    needs: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    ignored: str = IGNORED
    tools: str = ""  # a regular expression for printed commands, of which no wrapper knows

    def missing(self) -> list[str]:
        return [way for program, way in self.needs.items() if not shutil.which(program) and not _exists(program)]


# The base interpreter of the environment is in the user's own, closed home, as with uv and pyenv.
PRIVATE_PYTHON = """
base=$HOME/.local/share/uv/python/cpython-3.11
chmod 700 $HOME
mkdir -p $base/bin $base/lib
cp $(readlink -f /usr/bin/python3) $base/bin/python3.11
ln -sf python3.11 $base/bin/python3
ln -sfn /usr/lib/python3.11 $base/lib/python3.11
$base/bin/python3 -m venv --without-pip .venv
printf '#!%s/.venv/bin/python\\nimport sys\\nprint("mytool", sys.prefix, sys.base_prefix)\\n' $PWD >.venv/bin/mytool
chmod 755 .venv/bin/mytool
"""

# Files that are made in `group` belong to the team, and those in `acl` may be written by it.
SHARED_DIRECTORIES = f"""
mkdir group acl
chgrp {GROUP} group
chmod 2775 group
{PYTHON} -c '
import os, struct
entries = [(1, 7, -1), (2, 7, {GROUP}), (4, 5, -1), (8, 7, {GROUP}), (16, 7, -1), (32, 5, -1)]
acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, bits, who & 0xFFFFFFFF) for tag, bits, who in entries)
os.setxattr("acl", "system.posix_acl_default", acl)'
"""

GO_ENVIRONMENT = {"GOFLAGS": "-mod=mod", "GOPROXY": "off", "CGO_ENABLED": "1"}
HEADERS = next(iter(sorted(Path("/lib/modules").glob("*/build"))), Path("/lib/modules/none/build"))
MKE2FS = {"/usr/sbin/mke2fs": "apt-get install e2fsprogs", "/usr/sbin/debugfs": "apt-get install e2fsprogs"}

BUILDS = {
    "hello with distcheck": Foreign(
        script="$make -j2 -s && $make -s -j2 distcheck TEXI2DVI=true",
        prepare="./configure -q",
        needs={"msgfmt": "apt-get install gettext"},
        env={"CONFIG_SITE": "{base}/config.site"},
    ),
    "a Debian package": Foreign(
        script='dpkg-buildpackage -b -us -uc -rfakeroot -R"$make -j2 -f debian/rules" && dpkg-deb -c ../hi_1.0_*.deb',
        files={f"project/{name}": text for name, text in projects.DEBIAN.items()},
        prepare="chmod 755 debian/rules",
        needs={"dpkg-buildpackage": "apt-get install dpkg-dev", "fakeroot": "apt-get install fakeroot"},
    ),
    "go with cgo and trimpath": Foreign(
        script="$go build -x -trimpath -o program . && ./program",
        files={f"project/{name}": text for name, text in projects.GO.items()},
        needs={"go": "apt-get install golang-go"},
        prepare="mkdir -p $HOME/.cache && cp -a {base}/go-build $HOME/.cache/",
        env=GO_ENVIRONMENT,
        tools=r"/pkg/tool/\w+/(?:compile|asm|cgo|link) ",
    ),
    "an environment with a private python": Foreign(
        script="PATH=$PWD/.venv/bin:$PATH $make -j2 -s",
        files={f"project/{name}": text for name, text in projects.VENV.items()},
        prepare=PRIVATE_PYTHON,
    ),
    "a kernel module": Foreign(
        script="$make -j2 -s",
        files={f"project/{name}": text for name, text in projects.MODULE.items()},
        needs={str(HEADERS): "apt-get install linux-headers-amd64"},
        env={"KERNEL": str(HEADERS), "KBUILD_BUILD_TIMESTAMP": "1970-01-01"},
    ),
    "linked trees": Foreign(
        script="$make -j2 -s && $make -s again",
        files={f"project/{name}": text for name, text in projects.LINKED.items()},
    ),
    "an image with holes": Foreign(
        script="PATH=$PATH:/usr/sbin $make -j2 -s",
        files={f"project/{name}": text for name, text in projects.IMAGE.items()},
        needs=MKE2FS,
    ),
    "a shared directory": Foreign(
        script="umask 022; $make -j2 -s",
        files={f"project/{name}": text for name, text in projects.SHARED.items()},
        prepare=SHARED_DIRECTORIES,
    ),
    "in the temporary directory": Foreign(
        script="$make -j2 -s",
        files=projects.TEMPORARY,
        tree="build",
        top="/tmp/foreign-{mark}",
    ),
    "a cargo workspace": Foreign(
        script="$cargo build -q && target/debug/program",
        files={f"project/{name}": text for name, text in projects.CARGO.items()},
        needs={"cargo": "apt-get install cargo"},
        env={"CARGO_INCREMENTAL": "0", "CARGO_NET_OFFLINE": "true"},
        ignored=IGNORED + r"|(^|/)\.fingerprint/",
    ),
}


@dataclass(frozen=True)
class Site:
    """A user's place, with one project in it."""

    where: Place
    build: Foreign

    @property
    def top(self) -> Path:
        return Path(self.build.top.format(base=self.where.base, mark=self.where.env["E2E_MARK"][:8]))

    @property
    def tree(self) -> Path:
        return self.top / self.build.tree

    @property
    def calls(self) -> Path:
        return self.where.base / CALLS

    def env(self, column: int) -> dict[str, str]:
        base = str(self.where.base)
        tools = [f"{base}/tools", f"{base}/rust/bin", str(COMMANDS), "/usr/local/bin", "/usr/bin", "/bin"]
        own = {name: text.format(base=base) for name, text in self.build.env.items()}
        names = {name: commands[column] for name, commands in NAMES.items()}
        return {**own, **names, "PATH": ":".join(tools), "TERMITE_SHORT": "0", "SOURCE_DATE_EPOCH": "1700000000"}

    def shell(self, script: str, column: int = 0, cwd: Path | None = None) -> Outcome:
        argv = ["sh", "-ec", script]
        return self.where.run(argv, cwd or self.where.base, env=self.env(column), timeout_s=LIMIT_S)

    def lay_out(self) -> None:
        """Copy the project to its place, whatever an earlier build has left there."""
        clean = f"[ ! -e {self.top} ] || chmod -R u+rwX {self.top}; rm -rf {self.top} {CALLS} home/.cache"
        prepare = self.build.prepare.replace("{base}", str(self.where.base)) or ":"
        copy = f"mkdir -p {self.tree} home && mkdir -m 700 {CALLS} && cp -a files/. {self.top} && cd {self.tree}"
        done = self.shell(f"{clean}; {copy} && {prepare}")
        assert done.code == 0, done
        assert self.shell(f"rm -rf {CALLS} && mkdir -m 700 {CALLS}").code == 0

    def entries(self) -> dict[str, list[object]]:
        done = self.shell(f"{PYTHON} {LISTING} {self.top} '{self.build.ignored}'")
        assert done.code == 0, done
        return {line[0]: line[1:] for line in map(json.loads, done.stdout.splitlines())}

    def compiled(self) -> int:
        """Return how many compile and link commands this machine has run."""
        calls = [line for file in self.calls.iterdir() for line in file.read_text().splitlines()]
        built = [call for call in calls if any(words in call for words in COUNTED)]
        return sum(not any(words in call for words in PROBES) for call in built)


def _exists(program: str) -> bool:
    return program.startswith("/") and Path(program).exists()


@pytest.fixture(params=USERS)
def user_place(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[Place]:
    """Yield a place of a user who belongs to a team."""
    with make_place(request.param) as where:
        become = tuple(word.replace("--clear-groups", f"--groups={where.uid},{GROUP}") for word in where.become)
        yield dataclasses.replace(where, become=become)
        # A build in /tmp stands there, and an ordinary user's tests have no /tmp of their own.
        where.run(["rm", "-rf", f"/tmp/foreign-{where.env['E2E_MARK'][:8]}"], where.base)


def make_site(where: Place, build: Foreign) -> Site:
    """Put the wrappers, the toolchain and the project's files beside the place of the build."""
    tools = where.base / "tools"
    tools.mkdir()
    show_toolchain(where)
    for program in (*(f"/usr/bin/{name}" for name in COMPILERS), f"{where.base}/rust/bin/rustc"):
        wrapper = tools / Path(program).name
        wrapper.write_text(WRAPPER.format(calls=where.base / CALLS, program=program))
        wrapper.chmod(0o755)
    files = where.base / "files"
    for name, text in build.files.items():
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_text(text)
    return Site(where, build)


def show_toolchain(where: Place) -> None:
    """Show the toolchain of rust, which is mostly in the home of the user who runs the tests."""
    found = shutil.which("cargo")
    rust = where.base / "rust"
    if found is None:
        return
    done = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True)
    sysroot = Path(done.stdout.strip())
    rust.mkdir()
    if where.enter:
        subprocess.run([*where.enter, "mount", "--bind", "-o", "ro", sysroot, rust], check=True)
    else:
        rust.rmdir()
        rust.symlink_to(sysroot)


def own(where: Place, path: Path) -> None:
    if IS_ROOT:
        subprocess.run(["chown", "-R", f"{where.uid}:{where.uid}", path], check=True)


@pytest.mark.timeout(2 * LIMIT_S)
@pytest.mark.parametrize("name", BUILDS)
def test_a_build_is_the_same_and_most_of_it_is_remote(
    name: str, user_place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    build = BUILDS[name]
    if missing := build.missing():
        pytest.skip(f"it needs: {', '.join(missing)}")
    site = make_site(user_place, build)
    if name in PREPARED:
        PREPARED[name](site)
    own(user_place, site.where.base)

    site.lay_out()
    plain = site.shell(build.script, 0, site.tree)
    assert plain.code == 0, plain
    expected, calls = site.entries(), site.compiled()

    site.lay_out()
    try:
        done = site.shell(build.script, 1, site.tree)
        status = site.where.run([site.where.termite("termite-ctl"), "status", "--json"], site.tree)
    finally:
        site.where.run([site.where.termite("termite-ctl"), "shutdown"], site.tree)
    assert done.code == 0, done
    found, jobs = site.entries(), json.loads(status.stdout)["jobs"]
    for path in expected.keys() & found.keys():
        if found[path][-1] and expected[path][:-1] == found[path][:-1]:
            expected[path][-1] = True  # zeros that a plain build has written may come home as a hole
    differences = {path for path in expected.keys() | found.keys() if expected.get(path) != found.get(path)}
    assert not differences, {path: (expected.get(path), found.get(path)) for path in sorted(differences)[:5]}

    total = calls + len(re.findall(build.tools.encode(), plain.stderr) if build.tools else ())
    share = jobs["remote"] / total if build.tools else 1 - site.compiled() / total
    with capsys.disabled():
        user = "root" if user_place.uid == 0 else "an ordinary user"
        print(f"\n{name}, as {user}: {share:.0%} of {total} compile and link commands on a worker")
    assert total >= 5, calls
    assert share >= LEAST_REMOTE, (jobs, done.stderr)


def _prepare_hello(site: Site) -> None:
    """Copy GNU hello, and let its configure scripts know the answers of an earlier one."""
    try:
        source = fetch_source("hello", CHECKOUT / "build" / "sources", patched=False)
    except SourceError as error:
        pytest.skip(f"the source of hello cannot be fetched: {error}")
    shutil.copytree(source, site.where.base / "files" / "project", symlinks=True)
    cache = CHECKOUT / "build" / "hello.site"
    if not cache.exists():
        copy = site.where.base / "configured"
        shutil.copytree(source, copy, symlinks=True)
        subprocess.run(["./configure", "-q", "-C"], cwd=copy, check=True, capture_output=True, timeout=LIMIT_S)
        lines = (copy / "config.cache").read_text().splitlines()
        cache.write_text("".join(f"{line}\n" for line in lines if "_cv_" in line and "_cv_env_" not in line))
        shutil.rmtree(copy)
    shutil.copy(cache, site.where.base / "config.site")


def _prepare_go(site: Site) -> None:
    """Compile go's own packages with the flags of the build, once for all users."""
    kept = CHECKOUT / "build" / "go-build"
    if not kept.exists():
        source = site.where.base / "empty"
        source.mkdir()
        (source / "go.mod").write_text("module example.com/empty\n\ngo 1.19\n")
        (source / "main.go").write_text('package main\n\nimport "C"\n\nfunc main() {}\n')
        cache = site.where.base / "go-build"
        env = {**os.environ, **GO_ENVIRONMENT, "GOCACHE": str(cache)}
        command = ["go", "build", "-trimpath", "-o", "/dev/null", "."]
        subprocess.run(command, cwd=source, env=env, check=True, timeout=LIMIT_S)
        shutil.copytree(cache, kept)
    shutil.copytree(kept, site.where.base / "go-build", dirs_exist_ok=True)


PREPARED: Mapping[str, Callable[[Site], None]] = {
    "hello with distcheck": _prepare_hello,
    "go with cgo and trimpath": _prepare_go,
}
