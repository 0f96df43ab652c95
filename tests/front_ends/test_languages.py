"""cargo, go and Meson build small projects remotely and without a network.

A plain build afterwards finds nothing to do.
"""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.cluster import Tree, new_tree
from tests.e2e.conftest import MakePlace
from tests.e2e.leftovers import assert_nothing_left
from tests.e2e.places import COMMANDS, Outcome

PATH = f"/usr/local/bin:/usr/bin:/bin:{COMMANDS}"

CRATE = '[package]\nname = "{name}"\nversion = "1.0.0"\nedition = "2021"\n{more}\n'
GO = {
    "go.mod": "module example.com/top\n\ngo 1.19\n",
    "main.go": 'package main\n\nimport "example.com/top/sub"\n\nfunc main() { println(sub.F()) }\n',
    "sub/sub.go": "package sub\n\nfunc F() int { return 42 }\n",
    "sub/sub_test.go": """package sub

import "testing"

func TestF(t *testing.T) {
	if F() != 42 {
		t.Fatal()
	}
}
""",
}
MESON = {
    "meson.build": """
project('example', 'c', version: '1')
assert(meson.get_compiler('c').has_header('stdio.h'))
generator = executable('generator', 'generator.c')
generated = custom_target('generated.c', output: 'generated.c', command: [generator], capture: true)
part = shared_library('part', 'part.c')
program = executable('program', 'main.c', generated, link_with: part, install: true)
test('runs', program)
""",
    "generator.c": '#include <stdio.h>\nint main(void){puts("int generated(void){return 0;}");return 0;}\n',
    "part.c": "int part(void){return 0;}\n",
    "main.c": "int generated(void),part(void);int main(void){return generated()+part();}\n",
}


@dataclass(frozen=True)
class Project:
    """A project whose first build starts a cluster, in the environment of the tool's user."""

    tree: Tree
    env: Mapping[str, str]

    def run(self, *argv: str, **env: str) -> Outcome:
        done = self.tree.plain(*argv, env={**self.env, **env})
        assert done.code == 0, done
        return done

    def write(self, files: Mapping[str, str]) -> None:
        for name, content in files.items():
            self.tree.write(name, content)


@pytest.fixture
def project(make_place: MakePlace) -> Iterator[Project]:
    """Yield a project of the user who runs the tests.

    The toolchain may live in a home that nobody else may enter.
    """
    with make_place("root") as where:
        (where.base / "home").chmod(0o700)
        tree = new_tree(where)
        cargo = shutil.which("cargo")
        homes = {
            "CARGO_NET_OFFLINE": "true",
            "CARGO_HOME": str(where.base / "home" / ".cargo"),
            "RUSTUP_HOME": os.environ.get("RUSTUP_HOME") or str(Path.home() / ".rustup"),
            "GOFLAGS": "-mod=mod",
            "GOPROXY": "off",
            "TERMITE_ROOT": str(tree.path),
        }
        path = f"{PATH}:{Path(cargo).parent}" if cargo else PATH
        try:
            yield Project(tree, {"PATH": path, **homes})
        finally:
            tree.ctl("shutdown")
        assert_nothing_left(where, tree.path)


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not shutil.which(program), reason=f"{program} is not installed")


@needs("cargo")
def test_cargo_build(project: Project) -> None:
    """Use a build script, incremental compilation, and crates in the tree and in CARGO_HOME."""
    sources = Path(project.env["CARGO_HOME"]) / "registry" / "src" / "index"
    _crate(sources, "stored", "pub fn f() -> i32 { 40 }")
    dependencies = f'[dependencies]\nnear = {{ path = "near" }}\nstored = {{ path = "{sources}/stored" }}'
    project.write(
        {
            "Cargo.toml": CRATE.format(name="top", more=dependencies),
            "build.rs": 'fn main() { println!("cargo:rustc-env=MADE=built"); }\n',
            "src/main.rs": 'fn main() { println!("{} {}", near::f() + stored::f(), env!("MADE")); }\n',
            "near/Cargo.toml": CRATE.format(name="near", more=""),
            "near/src/lib.rs": "pub fn f() -> i32 { 2 }\n",
        }
    )
    done = project.run("termite-build", "cargo", "build")
    assert b"warning" not in done.stderr, done
    assert project.tree.jobs() == 4, (done.stderr.decode(), project.tree.status())
    assert project.tree.status()["fallbacks"] == {}
    assert project.run("target/debug/top").stdout == b"42 built\n"
    for way in (("cargo",), ("termite-build", "cargo")):
        assert b"Compiling" not in project.run(*way, "build").stderr

    # A crate appears while the master runs, in a directory that jobs have seen already.
    _crate(sources, "fetched", "pub fn f() -> i32 { 100 }")
    more = f'{dependencies}\nfetched = {{ path = "{sources}/fetched" }}'
    main = 'fn main() { println!("{} {}", near::f() + stored::f() + fetched::f(), env!("MADE")); }\n'
    project.write({"Cargo.toml": CRATE.format(name="top", more=more), "src/main.rs": main})
    done = project.run("termite-build", "cargo", "build")
    assert done.stderr.count(b"Compiling") == 2, done
    assert project.run("target/debug/top").stdout == b"142 built\n"
    assert project.tree.jobs() == 6

    said = project.tree.ctl("why", "/x/bin/rustc", "-vV").stdout.decode()
    assert "plugin     cargo\n" in said
    assert "place      local\n" in said
    assert "(cargo plugin" in said


def _crate(directory: Path, name: str, lib: str) -> None:
    (directory / name / "src").mkdir(parents=True)
    (directory / name / "Cargo.toml").write_text(CRATE.format(name=name, more=""))
    (directory / name / "src" / "lib.rs").write_text(lib + "\n")


@needs("cargo")
def test_an_error_of_rustc_looks_as_ever(project: Project) -> None:
    project.write({"Cargo.toml": CRATE.format(name="top", more=""), "src/main.rs": "fn main() { x }\n"})
    env = {**project.env, "CARGO_TERM_COLOR": "always"}
    plain = project.tree.plain("cargo", "build", env=env)
    assert plain.code == 101
    assert project.tree.ctl("start", str(project.tree.path), env=env).code == 0
    assert project.tree.plain("termite-build", "cargo", "build", env=env) == plain
    assert project.tree.jobs() == 1


@needs("go")
@needs("gcc")
@pytest.mark.parametrize("flags", ["-trimpath", ""])
def test_go_with_c_has_the_bits_of_a_plain_build(project: Project, flags: str) -> None:
    """With -trimpath no name of a temporary directory stays, wherever that is."""
    sub = 'package sub\n\n// int f(void) { return 41; }\nimport "C"\n\nfunc F() int { return int(C.f()) + 1 }\n'
    main = 'package main\n\n// int g(int a) { return a; }\nimport "C"\nimport "example.com/top/sub"\n'
    main += "\nfunc main() { println(C.g(C.int(sub.F()))) }\n"
    project.write({**GO, "sub/sub.go": sub, "main.go": main})
    built = {}
    for way in ("plain", "termite"):
        env = {"GOCACHE": str(project.tree.where.base / "home" / f"cache-{way}"), "TERMITE_SHORT": "0"}
        front_end = ["termite-build"] if way == "termite" else []
        project.run(*front_end, "go", "build", "-buildvcs=false", *flags.split(), "-o", "out", ".", **env)
        built[way] = (project.tree.path / "out").read_bytes()
    assert built["plain"] == built["termite"]
    assert b"/go-build" not in built["termite"] or "-trimpath" not in flags
    assert project.tree.jobs() >= 4
    left = {path.name for path in project.tree.path.iterdir() if not path.name.startswith(".termite")}
    assert left == {"go.mod", "main.go", "sub", "out"}


@needs("go")
def test_go_build_and_test(project: Project) -> None:
    project.write(GO)
    project.run("termite-build", "go", "build", "-o", "program", ".")
    assert project.tree.jobs() == 3, "two packages, one link"
    assert project.tree.status()["fallbacks"] == {}
    assert project.run("./program").stderr == b"42\n"
    project.run("termite-build", "go", "test", "./...")
    for way in (("go",), ("termite-build", "go")):
        assert b"/compile -o" not in project.run(*way, "build", "-x", "-o", "program", ".").stderr
    project.write({"sub/sub.go": "package sub\n\nfunc F() int { return 43 }\n"})
    before = project.tree.jobs()
    assert project.run("termite-build", "go", "build", "-x", "-o", "program", ".").stderr.count(b"/compile -o") == 2
    assert project.tree.jobs() == before + 3
    assert project.run("./program").stderr == b"43\n"
    left = {name for name in os.listdir(project.tree.path) if not name.startswith(".termite-")}
    assert left == {"go.mod", "main.go", "program", "sub"}
    said = project.tree.ctl("why", "/usr/lib/go/pkg/tool/linux_amd64/link", "-o", "x").stdout.decode()
    assert ("plugin     go\n" in said, "place      remote\n" in said) == (True, True)


@needs(str(COMMANDS / "meson"))
def test_meson(project: Project) -> None:
    project.write(MESON)
    project.run("meson", "setup", "--buildtype=release", "plain")
    project.run("ninja", "-C", "plain")
    project.run("meson", "setup", "--buildtype=release", "build")
    done = project.run("termite-build", "meson", "compile", "-C", "build")
    assert done.stdout.count(b"/9]") >= 1
    assert project.tree.jobs() == 9
    assert project.tree.jobs("local") == 0
    for name in ("program", "libpart.so", "generated.c"):
        near, far = (project.tree.path / tree / name for tree in ("plain", "build"))
        assert near.read_bytes() == far.read_bytes(), name
    for way in (("ninja",), ("termite-ninja",)):
        assert b"no work to do" in project.run(*way, "-C", "build").stdout
    project.write({"meson.build": MESON["meson.build"] + "executable('more', 'main.c', generated, link_with: part)\n"})
    assert b"'more'" in (done := project.run("termite-ninja", "-C", "build")).stdout or b"more.p" in done.stdout
    assert project.tree.jobs("local") == 1, "it is set up again here"
    tested = project.run("termite-build", "meson", "test", "-C", "build")
    assert re.search(rb"^Ok: +1\b", tested.stdout, re.MULTILINE), tested  # the columns differ between versions of Meson
    project.run("termite-build", "meson", "install", "-C", "build", "--destdir", str(project.tree.path / "to"))
    assert list(project.tree.path.rglob("to/**/bin/program"))


@needs(str(COMMANDS / "meson"))
def test_meson_with_the_launcher_in_its_compiler(project: Project) -> None:
    project.write(MESON)
    assert project.tree.ctl("start", str(project.tree.path), env=project.env).code == 0
    project.run("meson", "setup", "build", CC="termite gcc")
    before = project.tree.jobs()
    project.run("ninja", "-C", "build")
    assert project.tree.jobs() == before + 7, "4 compiles, 3 links"
    assert b"no work to do" in project.run("ninja", "-C", "build", TERMITE_SOCKET="").stdout


def test_a_tool_that_no_plugin_knows_runs_after_one_line(project: Project) -> None:
    assert project.tree.ctl("start", str(project.tree.path), env=project.env).code == 0
    done = project.run("termite-build", "echo", "-n", "hello")
    assert done.stdout == b"hello"
    assert done.stderr == b"termite: started without workers: no plugin knows how to start echo\n"
