"""Whole projects through termite-make, and makes that cannot be preloaded."""

import shutil
from pathlib import Path

import pytest

from termite.cli.build_commands.build_tools import why_not_preloaded
from tests.e2e.cluster import Tree
from tests.e2e.places import COMMANDS, IS_ROOT, Outcome
from tests.e2e.snapshot import snapshot
from tests.front_ends.conftest import Make

SHELL_TRICKS = r"""
all: heredoc pipes dollars background traps subshell redirections functions
heredoc: ; @printf 'cat <<E >$@\nline $$HOME is home\nE\n' >script; sh script; grep -c home $@
pipes: ; @seq 1 1000 | sort -rn | head -3 | tr '\n' ' ' >$@; cat $@; false | true; echo $$? | cat
dollars: ; @test $$$$ -gt 0 && echo "$$$$" | grep -cE '^[0-9]+$$' >$@; echo '$$$$' "$$(echo $$(echo deep))" >>$@
background: ; @(sleep 0.2; echo late >$@.part) & (echo early >$@) & wait; cat $@ $@.part
traps: ; @trap 'echo trapped >$@' EXIT; trap 'echo term; exit 0' TERM; kill -TERM $$$$; echo never
subshell: ; @(cd / && pwd); { echo a; echo b; } >$@; x=1; (x=2); echo $$x; exec cat $@
redirections: ; @exec 3>$@; echo three >&3; exec 3>&-; cat <$@ 2>/dev/null; echo err >&2; ls /none 2>&1 | wc -l
functions: ; @f() { echo "f $$1"; }; f x >$@; case $$(cat $@) in f*) echo ok;; esac; for i in 1 2; do printf $$i; done
"""


def both(tree: Tree, *arguments: str) -> tuple[Outcome, Outcome]:
    """Run make and termite-make in two equal trees, compare the trees, and return both outcomes."""
    source = tree.path / "source"
    outcomes = []
    for name, program in (("near", "make"), ("far", tree.where.termite("termite-make"))):
        tree.plain("cp", "-a", str(source), str(tree.path / "work"))
        done = tree.plain(program, *arguments, within="work", timeout_s=110)
        tree.plain("mv", "work", name)
        outcomes.append(done)
    assert snapshot(tree.path / "far") == snapshot(tree.path / "near")
    return outcomes[0], outcomes[1]


def test_here_documents_pipes_dollars_background_jobs_and_traps(tree: Tree) -> None:
    tree.write("source/Makefile", SHELL_TRICKS)
    before = tree.jobs()
    near, far = both(tree)
    assert near.code == 0, near
    assert far == near
    assert tree.jobs() == before + 8


def test_a_thousand_tiny_targets_with_fifty_jobs(tree: Tree) -> None:
    names = " ".join(f"t{n}" for n in range(1000))
    tree.write("source/Makefile", f"all: {names}\n\t@cat {names} >all\nt%:\n\t@echo $* >$@\n")
    before = tree.jobs()
    near, far = both(tree, "-j50")
    assert far == near
    assert tree.jobs() == before + 1001
    assert tree.plain("make", "-q", within="far").code == 0


@pytest.mark.skipif(not shutil.which("autoreconf"), reason="autoconf is not installed")
def test_a_project_configured_by_autoconf(tree: Tree) -> None:
    """Configure plainly, then make all, dist and check, here and in a build directory."""
    tree.write("source/configure.ac", CONFIGURE_AC)
    tree.write("source/Makefile.am", MAKEFILE_AM)
    tree.write("source/sub/Makefile.am", "noinst_LIBRARIES = libsub.a\nlibsub_a_SOURCES = sub.c\n")
    tree.write("source/sub/sub.c", "int sub(void){return 0;}\n")
    tree.write("source/main.c", "#include <config.h>\nint sub(void);int main(void){return sub() + !HAVE_STDLIB_H;}\n")
    assert tree.plain("autoreconf", "-fi", within="source").code == 0
    tree.plain("sh", "-c", "cp -a source vpath && cd source && ./configure -q --disable-dependency-tracking")
    near, far = both(tree, "-j2")
    assert near.code == 0, near
    assert far == near
    # Each make finds nothing to do in what the other has built.
    assert b"Nothing to be done" in tree.plain("make", within="far").stdout
    assert b"Nothing to be done" in tree.make(within="near").stdout
    assert tree.plain("far/program").code == 0

    assert tree.plain("sh", "-c", "mkdir vpath/build && cd vpath/build && ../configure -q").code == 0
    before = tree.jobs()
    assert tree.make("-j2", within="vpath/build").code == 0
    done = tree.make("check", within="vpath/build")
    assert b"# PASS:  1" in done.stdout, done
    assert tree.jobs() >= before + 5
    assert b"Nothing to be done" in tree.plain("make", within="vpath/build").stdout
    tree.write("vpath/main.c", "#include <config.h>\nint sub(void);int main(void){return sub();}\n")
    assert b"main.o" in tree.make(within="vpath/build").stdout
    assert b"main.o" not in tree.plain("make", within="vpath/build").stdout

    # The makefile remakes itself with aclocal, automake, autoconf and autoheader, which run here.
    tree.write("vpath/configure.ac", CONFIGURE_AC.replace("[1]", "[2]"))
    local = tree.jobs("local")
    done = tree.make("-j4", within="vpath/build")
    assert done.code == 0, done
    assert b"termite" not in done.stderr, done
    assert tree.jobs("local") >= local + 4
    assert "VERSION='2'" in (tree.path / "vpath" / "configure").read_text()
    assert b"Nothing to be done" in tree.plain("make", within="vpath/build").stdout


CONFIGURE_AC = """
AC_INIT([example], [1])
AM_INIT_AUTOMAKE([foreign])
AC_PROG_CC
AC_PROG_RANLIB
AM_PROG_AR
AC_CHECK_HEADERS([stdlib.h])
AC_CONFIG_HEADERS([config.h])
AC_CONFIG_FILES([Makefile sub/Makefile])
AC_OUTPUT
"""
MAKEFILE_AM = """
SUBDIRS = sub
bin_PROGRAMS = program
program_SOURCES = main.c
program_LDADD = sub/libsub.a
TESTS = program
"""


# -- makes of another kind --------------------------------------------------------------------------------------------


@pytest.mark.timeout(620)  # the first test that wants the patched make builds it
def test_a_make_with_make_shell_needs_no_library(tree: Tree, make: Make) -> None:
    """Test a set-user-id make, too, into which the dynamic linker loads no library.

    3.82 would run its commands as that user, so it is left out.
    """
    tree.write("Makefile", MAKEFILE)
    tree.write("sub.mk", "all:\n\t@env | grep -c ^LD_PRELOAD; env | grep -c ^MAKE_SHELL; echo $(SHELL) >sub; :\n")
    env = _with_make(tree, make.patched)
    if IS_ROOT and make.version >= (4, 3):
        (tree.path / "bin" / "make").chmod(0o4755)
    before = tree.jobs()
    done = tree.make("-j2", env=env)
    assert (done.code, done.stderr) == (0, b""), done
    assert done.stdout == b"one shell /bin/sh\ngot two\n0\n0\n"
    assert (tree.path / "sub").read_text() == "/bin/sh\n"
    assert tree.jobs() == before + 4, "$(shell), two lines here, one below"
    said = tree.ctl("why", "termite", "--preload=make", "--", "/bin/sh", "-c", "make \\\n -C x").stdout.decode()
    assert ("plugin     make\n" in said, "place      local\n" in said, "make plugin" in said) == (True, True, True)


def test_a_static_make_with_make_shell_builds_a_c_project_on_workers(tree: Tree, static_make: Path) -> None:
    """Use commands that need no shell, implicit rules, a recursive make and its jobserver."""
    assert why_not_preloaded(static_make) == "is linked statically"
    for name, text in C_PROJECT.items():
        tree.write(f"far/{name}", text)
    tree.plain("cp", "-a", "far", "near")
    env = _with_make(tree, static_make)
    near = tree.plain("make", "-j4", within="near", env=env)
    before = tree.jobs()
    far = tree.make("-j4", within="far", env=env)
    assert (near.code, far.code, far.stderr) == (0, 0, b""), (near, far)
    assert snapshot(tree.path / "far") == snapshot(tree.path / "near")
    assert tree.jobs() == before + 7, "five compiles, an archive and a link; what make runs as make stays"
    assert tree.plain("far/program").stdout == b"6\n"
    assert tree.plain("make", within="far", env=env) == Outcome(0, b"", b""), "nothing is made again"


C_PROJECT = {
    "Makefile": "CFLAGS = -O1\nall: program\nprogram: main.o one.o sub/libsub.a\n\t$(CC) -o $@ $^\n"
    "sub/libsub.a: FORCE\n\t+@$(MAKE) -s -C sub\nFORCE:\nmain.o one.o: sub.h\n",
    "main.c": '#include <stdio.h>\n#include "sub.h"\nint main(void) { return printf("%d\\n", one() + sub()) < 0; }\n',
    "one.c": '#include "sub.h"\nint one(void) { return 1; }\n',
    "sub.h": "int one(void), sub(void);\n",
    "sub/Makefile": "libsub.a: a.o b.o c.o\n\t$(AR) -rcD $@ $^\n",
    "sub/a.c": "int b(void), c(void);\nint sub(void) { return b() + c(); }\n",
    "sub/b.c": "int b(void) { return 2; }\n",
    "sub/c.c": "int c(void) { return 3; }\n",
}

MAKEFILE = """
SHELL := /bin/sh
V := $(shell echo two | cat)
all:
	@echo one shell $(SHELL) | cat
	@+echo got $(V)
	@$(MAKE) -s -f sub.mk
"""


def test_a_link_to_termite_make_in_front_of_path_is_no_loop(tree: Tree) -> None:
    tree.write("Makefile", "all:\n\t@$(MAKE) -s below\nbelow:\n\t@echo made\n")
    (tree.path / "bin").mkdir()
    (tree.path / "bin" / "make").symlink_to(tree.where.termite("termite-make"))
    done = tree.plain("make", "-s", env={"PATH": f"{tree.path / 'bin'}:/usr/bin:/bin"})
    assert done == Outcome(0, b"made\n", b"")


def _with_make(tree: Tree, make: Path) -> dict[str, str]:
    directory = tree.mkdir("bin")
    shutil.copy(make, directory / "make")
    return {"PATH": f"{directory}:/usr/bin:/bin:{COMMANDS}"}
