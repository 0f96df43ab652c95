"""CMake with termite: launchers set by hand, and `termite-cmake` for an unmodified project."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.cluster import Tree, new_tree
from tests.e2e.conftest import MakePlace
from tests.e2e.places import COMMANDS, Outcome

CMAKES = {"Debian's": Path("/usr/bin"), "PyPI's": COMMANDS}
GENERATORS = ("Ninja", "Unix Makefiles")
PROJECT = {
    "CMakeLists.txt": """
cmake_minimum_required(VERSION 3.20)
project(example C CXX)
include(CheckIncludeFile)
check_include_file(stdio.h HAS_STDIO)
include(CheckCXXSourceCompiles)
check_cxx_source_compiles("int main() { return 0; }" COMPILES)
add_executable(generator generator.c)
add_custom_command(OUTPUT generated.c COMMAND generator generated.c DEPENDS generator)
add_library(part STATIC part.c "a b.c")
add_library(shared SHARED shared.cc)
add_executable(program main.cc generated.c)
target_link_libraries(program part shared)
add_custom_target(note COMMAND ${CMAKE_COMMAND} -E echo noted)
install(TARGETS program)
enable_testing()
add_test(NAME runs COMMAND program)
""",
    "generator.c": '#include <stdio.h>\nint main(int n,char**v){fputs("int generated(void){return 0;}\\n",'
    'fopen(v[1],"w"));return n!=2;}\n',
    "part.c": "int part(void){return 0;}\n",
    "a b.c": "int ab(void){return 0;}\n",
    "shared.cc": "int shared(){return 0;}\n",
    "main.cc": 'extern "C" int generated(),part(),ab();int shared();\n'
    "int main(){return generated()+part()+ab()+shared();}\n",
}
SOURCES = 6  # one of them is generated
PRODUCTS = ("generator", "generated.c", "libpart.a", "libshared.so", "program")
NOTHING = {"Ninja": b"no work to do", "Unix Makefiles": b"Built target program"}


@dataclass(frozen=True)
class Project:
    """A project in a tree, and one way to call CMake in it."""

    tree: Tree
    cmake: Path
    generator: str

    def run(self, *argv: str, env: Mapping[str, str] | None = None) -> Outcome:
        path = f"{self.cmake}:/usr/local/bin:/usr/bin:/bin:{COMMANDS}"
        done = self.tree.plain(*argv, env={"PATH": path, **(env or {})})
        assert done.code == 0, done
        return done

    def configure(self, *arguments: str, program: str = "cmake", **options: Mapping[str, str]) -> Outcome:
        return self.run(program, "-S", ".", "-B", "build", "-G", self.generator, *arguments, **options)

    def build(self, *arguments: str, program: str = "cmake", **options: Mapping[str, str]) -> Outcome:
        return self.run(program, "--build", "build", *arguments, **options)

    def products(self) -> dict[str, bytes]:
        return {name: (self.tree.path / "build" / name).read_bytes() for name in PRODUCTS}

    def times(self) -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in self.tree.path.glob("build/**/*.o")}

    def compiled(self, done: Outcome) -> int:
        return done.stdout.count(b"Building C")


ALL = list(itertools.product(CMAKES, GENERATORS))
CROSSED = [ALL[0], ALL[3]]  # fewer pairs, because a configuration takes seconds


@pytest.fixture(params=CROSSED, ids=" ".join)
def project(tree: Tree, request: pytest.FixtureRequest) -> Project:
    name, generator = request.param
    if not (CMAKES[name] / "cmake").exists():
        pytest.skip(f"there is no cmake in {CMAKES[name]}")
    for file, content in PROJECT.items():
        tree.write(file, content)
    return Project(tree, CMAKES[name], generator)


@pytest.mark.parametrize("project", ALL, indirect=True, ids=" ".join)
def test_a_compiler_launcher_sends_compiles_and_leaves_the_checks_here(project: Project) -> None:
    before, local = project.tree.jobs(), project.tree.jobs("local")
    project.configure("-DCMAKE_C_COMPILER_LAUNCHER=termite", "-DCMAKE_CXX_COMPILER_LAUNCHER=termite")
    assert (project.tree.jobs(), project.tree.jobs("local")) == (before, local), "checks do not even ask"
    assert project.compiled(project.build()) == SOURCES
    assert project.tree.jobs() == before + SOURCES
    assert NOTHING[project.generator] in project.build().stdout
    assert project.compiled(project.build(env={"TERMITE_SOCKET": ""})) == 0


@pytest.mark.parametrize("project", ALL, indirect=True, ids=" ".join)
def test_termite_cmake_configures_and_builds_an_unmodified_project(project: Project) -> None:
    jobs = project.tree.jobs
    project.configure()
    project.build()
    plain, makefile = project.products(), _makefile(project)
    project.run("rm", "-rf", "build")

    before = jobs(), jobs("local")
    project.configure(program="termite-cmake")
    assert (jobs(), jobs("local")) == before, "checks stay here"
    assert _makefile(project) == makefile, "CMake's own targets have no launcher"
    done = project.build(program="termite-cmake")
    assert done.stderr == b"", done
    assert project.compiled(done) == SOURCES
    assert project.products() == plain
    # 6 compiles, 4 links, 1 generated source, and what makefiles add.
    assert jobs() - before[0] >= 11
    for name in ("compile", "link", "custom"):
        assert f"--cmake={name} ".encode() in _commands(project), name
    stamps = project.times()
    for program, other in (("cmake", "termite-cmake"), ("termite-cmake", "cmake")):
        project.configure(program=program)
        assert project.compiled(project.build(program=other)) == 0
    assert project.times() == stamps


@pytest.mark.parametrize("project", ALL, indirect=True, ids=" ".join)
def test_a_directory_that_was_configured_plainly_is_configured_again_without_a_warning(project: Project) -> None:
    plain = project.configure(program="cmake")
    assert plain.stderr == b"", plain
    for _ in range(2):
        done = project.configure(program="termite-cmake")
        assert done.stderr == b"", done
    assert b"--cmake=" not in _commands(project), "the commands stay as they are"


@pytest.mark.parametrize("project", CROSSED[:1], indirect=True, ids=" ".join)
def test_what_termite_cmake_configured_goes_remote_with_plain_cmake_too(project: Project) -> None:
    project.configure(program="termite-cmake")
    before = project.tree.jobs()
    project.build()
    assert project.tree.jobs() - before >= 11
    project.run("rm", "-rf", "build")
    project.configure(program="termite-cmake")
    before = project.tree.jobs()
    assert project.compiled(project.build(env={"TERMITE_SOCKET": ""})) == SOURCES, "without a master it just builds"
    assert project.tree.jobs() == before


@pytest.mark.parametrize("project", CROSSED[1:2], indirect=True, ids=" ".join)
def test_a_directory_that_was_configured_plainly_is_not_built_again(project: Project) -> None:
    project.configure()
    assert project.compiled(project.build()) == SOURCES
    stamps = project.times()
    before = project.tree.jobs()
    assert project.compiled(project.build(program="termite-cmake")) == 0
    project.configure(program="termite-cmake")
    assert project.compiled(project.build(program="termite-cmake")) == 0
    assert project.compiled(project.build()) == 0
    assert project.times() == stamps
    project.tree.write("part.c", "int part(void){return 0;} int more;\n")
    done = project.build(program="termite-cmake")
    assert project.compiled(done) == 1
    assert project.tree.jobs() - before >= 3, "it is remote all the same"


@pytest.mark.parametrize("project", CROSSED[0:1], indirect=True, ids=" ".join)
def test_tests_and_installing_stay_here(project: Project) -> None:
    project.configure("-DCMAKE_INSTALL_PREFIX=installed", program="termite-cmake")
    project.build(program="termite-cmake")
    before = project.tree.jobs()
    assert b"100% tests passed" in project.build("--target", "test", program="termite-cmake").stdout
    project.build("--target", "install", program="termite-cmake")
    assert project.tree.plain("build/program").code == 0
    assert list(project.tree.path.rglob("installed/bin/program"))
    if project.generator == "Ninja":
        assert project.tree.jobs() == before


@pytest.mark.parametrize("project", CROSSED[:1], indirect=True, ids=" ".join)
def test_a_changed_list_file_configures_again_here_and_keeps_the_launchers(project: Project) -> None:
    project.configure(program="termite-cmake")
    project.build(program="termite-cmake")
    launchers = _commands(project).count(b"--cmake=compile")
    lists = PROJECT["CMakeLists.txt"]
    project.tree.write("CMakeLists.txt", lists + "add_executable(more more.c)\n")
    project.tree.write("more.c", "int main(void){return 0;}\n")
    local = project.tree.jobs("local")
    done = project.build(program="termite-cmake")
    assert b"Configuring done" in done.stdout
    assert project.tree.jobs("local") > local
    assert project.compiled(done) == 1
    assert _commands(project).count(b"--cmake=compile") > launchers


def test_directories_with_blanks_and_sources_elsewhere(make_place: MakePlace) -> None:
    with make_place("ordinary") as where:
        top = new_tree(where, "a place")
        source = top.subtree("the source")
        for name, content in PROJECT.items():
            source.write(name, content)
        source.path.chmod(0o700)
        build = top.subtree("the build")
        env = {"PATH": f"/usr/bin:/bin:{COMMANDS}"}
        try:
            for arguments in (("-G", "Ninja", "../the source"), ("--build", ".")):
                done = build.plain("termite-cmake", *arguments, env=env)
                assert done.code == 0, done
            assert (top.path / ".termite-socket").exists(), "the tree is what contains sources and build"
            assert build.jobs() >= 11
            assert build.jobs("local") == 0
        finally:
            build.ctl("shutdown")


def test_why_explains_a_command_as_ninja_shows_it(tree: Tree) -> None:
    line = "/x/termite --cmake=compile --language=C -- /usr/bin/cc -c x.c"
    for words in ((f"cd /b && {line}",), tuple(line.split())):
        said = tree.ctl("why", *words).stdout.decode()
        assert "plugin     cmake\n" in said, said
        assert "place      remote\n" in said
        assert "--cmake" not in said
    said = tree.ctl("why", "/usr/bin/cmake", "-P", "cmake_install.cmake").stdout.decode()
    assert "place      local\n" in said
    assert "cmake plugin" in said


def _makefile(project: Project) -> str:
    """Return the text of the upper makefile, in which CMake's own targets are."""
    file = project.tree.path / "build/Makefile"
    return file.read_text() if file.exists() else ""


def _commands(project: Project) -> bytes:
    """Return the text of the build files of the project."""
    build = project.tree.path / "build"
    names = ("build.ninja", "CMakeFiles/rules.ninja", "**/build.make", "**/link.txt")
    return b"".join(path.read_bytes() for name in names for path in sorted(build.glob(name)))
