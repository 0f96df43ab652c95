"""The promises of the patches for MAKE_SHELL, against a GNU make without the patches.

The patched make 4.3 is compared with Debian's make. The patched 3.82 is compared if its source is
given (TERMITE_MAKE382_SRC). The wrapper that MAKE_SHELL names records its call. Then it runs the
shell that TERMITE_SHELL names, as the launcher's termite-shell does.
"""

import json
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.front_ends.conftest import Make
from tests.front_ends.suites import all_scripts, copy_suite, run_suite

RUN_TIMEOUT_S = 60  # a run of make here takes milliseconds
SUITE_TIMEOUT_S = 300  # GNU make's own test suite: 35 s alone
SUITE_TRIES = 4  # runs of the scripts that differ: on a busy machine, targets/SECONDARY passes two times of three

# Scripts of the suite that expect make's own message for a missing command. With MAKE_SHELL, the
# message comes from the shell.
SAY_NOT_FOUND = {
    (4, 3): ("features/errors", "features/output-sync", "features/targetvars", "functions/shell", "misc/general4"),
    (3, 82): (),
}

# Scripts that sleep for most of the suite's time. They run beside the others.
SLEEPERS = (
    "features/double_colon",
    "features/output-sync",
    "features/parallelism",
    "options/dash-l",
    "targets/SECONDARY",
)

WRAPPER = """#!/usr/bin/python3 -SE
import json, os, sys
call = json.dumps({"arguments": sys.argv[1:], "environment": dict(os.environ)})
log = os.open(os.environ["CALLS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
os.write(log, call.encode() + b"\\n")
os.close(log)
shell = os.environ.get("TERMITE_SHELL", "/bin/sh")
os.execvp(shell, [shell, *sys.argv[1:]])
"""

pytestmark = pytest.mark.timeout(600)  # the first test builds make: 20 s on two idle cores


@dataclass(frozen=True)
class Call:
    """One call of the wrapper."""

    arguments: list[str]
    environment: dict[str, str]

    @property
    def shell(self) -> str:
        return self.environment["TERMITE_SHELL"]


@dataclass(frozen=True)
class Outcome:
    """The exit code and the output of one run of make."""

    exit_code: int
    output: str


@dataclass(frozen=True)
class Project:
    """A directory to run one make in."""

    directory: Path
    make: Make
    wrapper: Path

    @property
    def is_4(self) -> bool:
        return self.make.version >= (4, 0)

    def needs_4(self, what: str) -> None:
        """Skip the test for 3.82, which lacks `what`."""
        if not self.is_4:
            pytest.skip(f"GNU make 3.82 has no {what}")

    def failed(self, line: int, code: int) -> str:
        """Return make's message for a line of `Makefile` that failed, for the target `all`."""
        return f"make: *** [{f'Makefile:{line}: ' if self.is_4 else ''}all] Error {code}\n"

    def write(self, makefile: str, name: str = "Makefile") -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(makefile)

    def run(self, *arguments: str, make_shell: bool = True, **environment: str) -> Outcome:
        """Run the patched make, with MAKE_SHELL in its environment unless told otherwise."""
        wrapped = {"MAKE_SHELL": str(self.wrapper)} if make_shell else {}
        return self._run(self.make.patched, arguments, wrapped | environment)

    def run_stock(self, *arguments: str, **environment: str) -> Outcome:
        return self._run(self.make.stock, arguments, environment)

    def calls(self) -> list[Call]:
        log = self.directory / "calls"
        return [Call(**json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []

    def arguments(self) -> list[list[str]]:
        return [call.arguments for call in self.calls()]

    def _run(self, make: Path, arguments: Iterable[str], environment: dict[str, str]) -> Outcome:
        done = subprocess.run(
            ["make", *arguments],  # with this name, $(MAKE) and the messages are the same for both makes
            executable=make,
            cwd=self.directory,
            env={
                "PATH": f"{make.parent}:/usr/bin:/bin",
                "LANG": "C.UTF-8",
                "CALLS": str(self.directory / "calls"),
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=RUN_TIMEOUT_S,
        )
        return Outcome(done.returncode, done.stdout.decode())


@pytest.fixture
def project(tmp_path: Path, make: Make) -> Project:
    (tmp_path / "project").mkdir()
    wrapper = tmp_path / "a directory" / "wrapper"
    wrapper.parent.mkdir()
    wrapper.write_text(WRAPPER)
    wrapper.chmod(0o755)
    return Project(tmp_path / "project", make, wrapper)


# -- who runs what ----------------------------------------------------------------------------------------------------


def test_features_tell_that_make_knows_make_shell(project: Project) -> None:
    project.write("$(info $(filter make-shell,$(.FEATURES)))\nall: ;\n")
    assert project.run(make_shell=False).output.startswith("make-shell\n")
    assert not project.run_stock().output.startswith("make-shell")


def test_a_recipe_line_is_run_by_make_shell(project: Project) -> None:
    project.write("all:\n\t@echo one; echo two\n")
    assert project.run() == Outcome(0, "one\ntwo\n")
    assert project.arguments() == [["-c", "echo one; echo two"]]


def test_the_shell_function_is_run_by_make_shell(project: Project) -> None:
    project.write("$(info got $(shell echo a; echo b))\nall: ; @:\n")
    assert project.run().output == "got a b\n"
    assert project.arguments() == [["-c", "echo a; echo b"]]


def test_a_shell_assignment_is_run_by_make_shell(project: Project) -> None:
    project.needs_4("!=")
    project.write("v != echo c | cat\n$(info $v)\nall: ; @:\n")
    assert project.run().output == "c\n"
    assert project.arguments() == [["-c", "echo c | cat"]]


def test_a_command_that_needs_no_shell_reaches_make_shell_as_a_shell_command(project: Project) -> None:
    project.write("$(info $(shell expr 1 + 2))\nall:\n\t@expr  '3  '  +\t4 \n")
    project.run()
    assert project.arguments() == [["-c", "exec expr 1 + 2"], ["-c", "exec expr  '3  '  +\t4 "]]
    assert {call.shell for call in project.calls()} == {"/bin/sh"}


def test_make_shell_may_be_set_on_the_command_line(project: Project) -> None:
    project.write("all:\n\t@expr 3 + 4\n")
    assert project.run(f"MAKE_SHELL={project.wrapper}", make_shell=False).output == "7\n"
    assert project.arguments() == [["-c", "exec expr 3 + 4"]]


def test_make_shell_may_be_set_in_a_makefile_and_for_one_target(project: Project) -> None:
    project.write(f"all: one two\ntwo: MAKE_SHELL = {project.wrapper}   # here\none two:\n\t@echo $@\n")
    assert project.run(make_shell=False).output == "one\ntwo\n"
    assert project.arguments() == [["-c", "exec echo two"]]


@pytest.mark.parametrize("value", ["", "   "])
def test_a_blank_make_shell_is_as_none(project: Project, value: str) -> None:
    project.write("all:\n\t@echo $$MAKE_TARGET $$TERMITE_SHELL done\n")
    assert project.run(make_shell=False, MAKE_SHELL=value) == Outcome(0, "done\n")


def test_make_shell_is_looked_up_in_the_path(project: Project) -> None:
    project.write("all:\n\t@echo yes\n")
    path = f"{project.wrapper.parent}:/usr/bin:/bin"
    assert project.run(make_shell=False, MAKE_SHELL="wrapper", PATH=path).output == "yes\n"
    assert project.arguments() == [["-c", "exec echo yes"]]


def test_a_make_shell_that_does_not_exist_is_named_in_the_error(project: Project) -> None:
    project.write("all:\n\t@expr 1\n")
    outcome = project.run(make_shell=False, MAKE_SHELL="/no/such/shell")
    reason = "No such file or directory" if project.is_4 else "Command not found"
    assert outcome == Outcome(2, f"make: /no/such/shell: {reason}\n{project.failed(2, 127)}")


def test_a_line_that_is_only_a_colon_is_run_by_nobody_as_in_stock_make(project: Project) -> None:
    project.write("all:\n\t:\n\t@:\n")
    assert project.run() == project.run_stock()
    assert project.calls() == []


def test_many_jobs_at_once_all_reach_make_shell(project: Project) -> None:
    names = [f"t{i}" for i in range(100)]
    project.write(f"all: {' '.join(names)}\n{' '.join(names)}:\n\t@touch $@\n")
    assert project.run("-j20").exit_code == 0
    assert sorted(call.environment["MAKE_TARGET"] for call in project.calls()) == sorted(names)
    assert all((project.directory / name).exists() for name in names)


# -- the makefile's own shell -----------------------------------------------------------------------------------------


def test_shell_keeps_its_value_and_reaches_make_shell(project: Project) -> None:
    project.write("SHELL := /bin/bash\nall:\n\t@echo $(SHELL) $${BASH_VERSION:+bash} $(origin SHELL)\n")
    assert project.run().output == "/bin/bash bash file\n"
    assert [call.shell for call in project.calls()] == ["/bin/bash"]


def test_the_shell_in_the_environment_of_a_recipe_is_the_callers(project: Project) -> None:
    project.write("SHELL := /bin/bash\nall:\n\t@echo $$SHELL\n")
    assert project.run(SHELL="/bin/zsh").output == "/bin/zsh\n"


def test_a_shell_for_one_target_reaches_make_shell(project: Project) -> None:
    project.write("all: one two\ntwo: SHELL := /bin/bash\none two:\n\t@expr 1\n")
    project.run()
    assert [call.shell for call in project.calls()] == ["/bin/sh", "/bin/bash"]


def test_a_shell_of_several_words_works(project: Project) -> None:
    project.write('SHELL := /usr/bin/env -u GONE bash\nall:\n\t@echo "$${BASH_VERSION:+bash} $$GONE"\n')
    assert project.run(GONE="here").output == "bash \n"
    (call,) = project.calls()
    assert call.shell == "/usr/bin/env"
    assert call.arguments[:4] == ["-u", "GONE", "bash", "-c"]


def test_shellflags_arrive_as_words(project: Project) -> None:
    project.write("SHELL := /bin/bash\n.SHELLFLAGS := -e -o pipefail -c\nall:\n\t@false | true; echo not here\n")
    assert project.run() == project.run_stock()
    assert project.arguments() == [["-e", "-o", "pipefail", "-c", "false | true; echo not here"]]


def test_posix_mode_adds_its_flag(project: Project) -> None:
    project.write(".POSIX:\nall:\n\t@expr 1\n")
    project.run()
    assert project.arguments() == [["-ec", "exec expr 1"]]


def test_a_script_language_as_shell_works_with_oneshell(project: Project) -> None:
    program = "import sys\nfor i in range(2):\n    print(i, '@-+')\n"
    recipe = "".join(f"\t{line}\n" for line in program.splitlines())
    flags = ["-S", "-c"] if project.is_4 else ["-Sc"]  # 3.82 passes them as one word to such a recipe
    shell = f"SHELL := /usr/bin/python3\n.SHELLFLAGS := {' '.join(flags)}\n"
    project.write(f".ONESHELL:\n.SILENT:\n{shell}all:\n{recipe}")
    assert project.run() == Outcome(0, "0 @-+\n1 @-+\n")
    assert project.arguments() == [[*flags, program.rstrip()]]


def test_oneshell_gives_the_whole_recipe_in_one_call(project: Project) -> None:
    project.write(".ONESHELL:\nall:\n\t@cd /\n\t@-pwd\n\techo '$@'\n")
    assert project.run() == project.run_stock()
    assert project.arguments() == [["-c", "cd /\npwd\necho 'all'"]]


def test_a_oneshell_recipe_of_one_simple_line_reaches_make_shell(project: Project) -> None:
    project.write(".ONESHELL:\nall:\n\t@expr 1\n")
    project.run()
    assert project.arguments() == [["-c", "exec expr 1"]]


@pytest.mark.parametrize(
    ("recipe", "command"),
    [
        ("echo 'größe ☂' \"ä$$HOME\"", "echo 'größe ☂' \"ä$HOME\""),
        ("echo $$$$ '\\n' a\\ b", "echo $$ '\\n' a\\ b"),
        ("printf '%s|' a \\\n\t  b", "exec printf '%s|' a \\\n  b"),
        ("expr a \\\n\t  : b", "exec expr a \\\n  : b"),
        ("cat <<<x >/dev/null || true # no", "cat <<<x >/dev/null || true # no"),
    ],
)
def test_a_command_arrives_as_it_was_written(project: Project, recipe: str, command: str) -> None:
    project.write(f"all:\n\t{recipe}\n")
    project.run()
    assert project.arguments() == [["-c", command]]


@pytest.mark.parametrize(
    "command", ["echo x $(words)", "echo 'y$(words)' z", 'echo "$(words)"a', "echo x \\\\$(words)"]
)
def test_a_newline_in_a_command_of_the_shell_function_ends_no_command_as_in_stock_make(
    project: Project, command: str
) -> None:
    project.write(f"define words\na  b\nc\n\n d\nendef\n$(info $(shell {command}))\nall: ;\n")
    outcome = project.run()
    assert len(project.calls()) == 1
    assert outcome == project.run_stock()


def test_each_line_of_a_variable_is_a_command_of_its_own(project: Project) -> None:
    project.write("define two\nexpr 1\nexpr 2; true\n\nexpr 3\\\\\nexpr 4\nendef\nall:\n\t$(two)\n")
    assert project.run() == project.run_stock()
    commands = [command for _, command in project.arguments()]
    assert commands == ["exec expr 1", "expr 2; true", "exec expr 3\\\\", "exec expr 4"]


# -- the environment of recipes ---------------------------------------------------------------------------------------


def test_a_recipe_is_told_its_target_and_prerequisites(project: Project) -> None:
    project.write(
        "out/all: b a | c\n\t@echo $$MAKE_TARGET: $$MAKE_DEPS.\na b c:\n\t@echo $$MAKE_TARGET: $$MAKE_DEPS.\n"
    )
    assert project.run().output == "b: .\na: .\nc: .\nout/all: b a c.\n"


def test_the_names_of_an_implicit_rule_and_of_vpath_are_those_of_the_files(project: Project) -> None:
    project.write("VPATH = src\n%.o: %.c\n\t@echo $$MAKE_TARGET: $$MAKE_DEPS\n")
    project.write("", "src/x.c")
    assert project.run("x.o").output == "x.o: src/x.c\n"


def test_prerequisites_that_would_not_fit_are_left_out_and_the_recipe_runs(project: Project) -> None:
    names = [f"generated/sources/of/the/project/part{i:05}.c" for i in range(10_000)]
    project.write(f"all: {' '.join(names)}\n\t@echo $(words $^)\n%.c: ;\n")
    assert project.run() == Outcome(0, "10000\n")
    (call,) = project.calls()
    assert call.environment["MAKE_TARGET"] == "all"
    assert "MAKE_DEPS" not in call.environment


def test_ten_thousand_prerequisites_are_told_where_they_fit(project: Project) -> None:
    names = [f"p{i}" for i in range(10_000)]
    project.write(f"all: {' '.join(names)}\n\t@echo $(words $^)\n{' '.join(names)}: ;\n")
    assert project.run() == Outcome(0, "10000\n")
    (call,) = project.calls()
    assert call.environment["MAKE_DEPS"].split() == names


def test_a_target_too_long_for_the_environment_is_left_out(project: Project) -> None:
    name = "x" * 200_000
    project.write(f".PHONY: {name}\nall: {name} ; @echo done\n{name}: ; @echo long\n")
    assert project.run() == Outcome(0, "long\ndone\n")


def test_a_variable_that_the_makefile_or_the_caller_exports_is_theirs(project: Project) -> None:
    project.write("export MAKE_TARGET := mine\nall:\n\t@echo $$MAKE_TARGET $$MAKE_DEPS\n")
    assert project.run(MAKE_DEPS="yours").output == "mine yours\n"


def test_a_make_below_tells_its_own_targets(project: Project) -> None:
    project.write("all: a\n\t@$(MAKE) -s -C sub\na:\n")
    project.write("sub: ; @echo $$MAKE_TARGET:$$MAKE_DEPS.\n", "sub/Makefile")
    assert project.run("-s").output == "sub:.\n"


def test_what_a_recipe_is_told_is_no_variable_of_a_make_below(project: Project) -> None:
    project.write("all: a\n\t@$(MAKE) -s -C sub\na:\n")
    project.write("MAKE_TARGET ?= own\nMAKE_DEPS ?= too\nall: ; @echo $(MAKE_TARGET) $(MAKE_DEPS)\n", "sub/Makefile")
    assert project.run("-s").output == "own too\n"


@pytest.mark.parametrize(
    "makefile",
    [
        "export MAKE_TARGET := given\nall: ; @$(MAKE) -s -C sub\n",
        "all: ; @MAKE_TARGET=given $(MAKE) -s -C sub\n",
        "all: ; @$(MAKE) -s -C sub MAKE_TARGET=given\n",
    ],
)
def test_a_variable_of_that_name_reaches_a_make_below(project: Project, makefile: str) -> None:
    project.write(makefile)
    project.write("all: ; @echo $(MAKE_TARGET) $$MAKE_TARGET:$$MAKE_DEPS.\n", "sub/Makefile")
    assert project.run("-s").output == "given given:.\n"


def test_without_make_shell_the_environment_of_a_recipe_is_as_stock_makes_it(project: Project) -> None:
    others = "grep -v ^PATH= | sort"  # each make is found first in its own PATH
    project.write(f"SHELL := /bin/bash\n$(info $(shell env | {others}))\nall: a b\n\t@env | {others}\na b:\n")
    assert project.run(make_shell=False) == project.run_stock()


def test_only_termite_shell_is_added_for_the_shell_function(project: Project) -> None:
    project.write("unused := $(shell expr 1)\nall: ;\n")
    project.run()
    (call,) = project.calls()
    assert not {"MAKE_TARGET", "MAKE_DEPS", "MAKE_TOLD"} & call.environment.keys()


# -- recursion --------------------------------------------------------------------------------------------------------

RECURSIVE = "all:\n\t@expr 1\n\t@$(MAKE) -s -C sub\n"
BELOW = "all: ; @expr 2\n"


@pytest.mark.parametrize("where", ["environment", "command line", "makefile"])
def test_a_make_below_obeys_make_shell_as_well(project: Project, where: str) -> None:
    setting = f"MAKE_SHELL={project.wrapper}"
    project.write((f"{setting}\n" if where == "makefile" else "") + RECURSIVE)
    project.write(BELOW, "sub/Makefile")
    words = [setting] if where == "command line" else []
    assert project.run("-s", *words, make_shell=where == "environment") == Outcome(0, "1\n2\n")
    assert [command for _, command in project.arguments()] == ["exec expr 1", "exec make -s -C sub", "exec expr 2"]


def test_a_make_that_executes_itself_again_keeps_make_shell(project: Project) -> None:
    project.write("-include made.mk\nall: ; @echo $(v)\nmade.mk: ; @echo v=1 >$@\n")
    assert project.run(f"MAKE_SHELL={project.wrapper}", make_shell=False).output == "1\n"
    assert [command for _, command in project.arguments()] == ["echo v=1 >made.mk", "exec echo 1"]


# -- everything else stays as it is -----------------------------------------------------------------------------------

STAGES = """
.PHONY: phony
all: group old new
group: old new
old new:
\ttouch $@
phony: ; @echo $@
forced: FORCE ; @echo $@
FORCE:
rec: ; +@expr 5
""".lstrip()


@pytest.mark.parametrize(
    "arguments",
    [
        ["-n", "all"],
        ["-n", "rec"],
        ["-q", "all"],
        ["-q", "phony"],
        ["-t", "all"],
        ["-t", "-q", "all"],
        ["all"],
        ["group"],
        ["old"],
        ["phony", "forced"],
        ["-k", "missing", "old"],
        ["--trace", "old"],
        ["-B", "all"],
    ],
)
def test_output_exit_code_and_files_are_those_of_stock_make(project: Project, arguments: list[str]) -> None:
    if "--trace" in arguments:
        project.needs_4("--trace")
    seen = []
    for run in (project.run_stock, project.run):
        for path in project.directory.iterdir():
            path.unlink()
        project.write(STAGES)
        outcomes = [run(*arguments), run(*arguments)]  # in the second run, nothing is left to do
        seen.append((outcomes, sorted({path.name for path in project.directory.iterdir()} - {"calls"})))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("flag", ["-n", "-q", "-t"])
def test_nothing_is_run_where_make_would_run_nothing(project: Project, flag: str) -> None:
    project.write(STAGES)
    project.run(flag, "all")
    assert project.calls() == []


def test_a_rule_without_a_recipe_stays_one(project: Project) -> None:
    quote = "'" if project.is_4 else "`"
    project.write("all: one\none: two\ntwo:\n")
    assert project.run() == Outcome(0, f"make: Nothing to be done for {quote}all'.\n")
    assert project.run("-q").exit_code == 0
    assert project.calls() == []


@pytest.mark.parametrize(
    "line",
    [
        "exit 3",
        "-exit 3",
        "false",
        "kill -SEGV $$$$",
        "sh -c 'kill -TERM $$$$';",
        "sh -c 'kill -TERM $$$$'",
        "@echo -e 'a\\tb'",
        "@echo a\\\\tb",
        "\\\n",
        "@echo out; echo err >&2",
        "@cat",
        "@A=1 env | grep ^A=",
    ],
)
def test_a_line_ends_as_with_stock_make(project: Project, line: str) -> None:
    project.write(f"all: ; @true\n\t{line}\n\t@echo next\n")
    assert project.run() == project.run_stock()


def test_a_program_is_run_where_the_shell_has_a_command_of_that_name(project: Project) -> None:
    """/bin/pwd prints the real directory, but the shell's own pwd the path through the link."""
    link = project.directory / "link"
    link.symlink_to(".")
    project.write("$(info $(shell pwd))\nall: ; @pwd\n")
    assert project.run(PWD=str(link)) == Outcome(0, f"{project.directory}\n" * 2)


def test_a_command_that_cannot_be_found_fails_in_the_words_of_the_shell(project: Project) -> None:
    project.write("all: ; ./missing one\n")
    said, failed = "./missing one\n{}: not found\n", project.failed(1, 127)
    assert project.run() == Outcome(2, said.format("/bin/sh: 1: exec: ./missing") + failed)
    assert project.run_stock().output.endswith(failed)


@pytest.mark.parametrize("style", ["target", "line", "recurse", "none"])
def test_synchronised_output_is_that_of_stock_make(project: Project, style: str) -> None:
    project.needs_4("--output-sync")
    project.write("all:\n\techo 1; echo 2 >&2\n\t$(MAKE) -f sub.mk\n")
    project.write("all: ; expr 3\n", "sub.mk")
    arguments = ["-j2", f"--output-sync={style}"]
    assert project.run(*arguments) == project.run_stock(*arguments)


# -- GNU make's own test suite ----------------------------------------------------------------------------------------


def test_gnu_makes_own_test_suite_gives_the_results_of_stock_make(make: Make, tmp_path: Path) -> None:
    # Copies, because the suite cannot start a make in a path with spaces.
    stock = Path(shutil.copy(make.stock, tmp_path / "make-stock"))
    patched = Path(shutil.copy(make.patched, tmp_path / "make-patched"))
    makes = {"stock": stock, "patched": patched, "wrapped": _always_wrapped(patched, tmp_path)}
    keys = [(name, sleeps) for name in makes for sleeps in (True, False)]
    trees = {key: copy_suite(make.source, tmp_path / f"{key[0]}-suite-{key[1]}") for key in keys}

    def different(scripts: Sequence[str]) -> list[str]:
        """Return which of `scripts` differ in their results with the three makes."""

        def run(key: tuple[str, bool]) -> dict[str, str]:
            chosen = [script for script in scripts if (script in SLEEPERS) == key[1]]
            return run_suite(trees[key], makes[key[0]], chosen, SUITE_TIMEOUT_S) if chosen else {}

        with ThreadPoolExecutor(len(keys)) as pool:  # the suite mostly sleeps: all take as long as one
            runs = iter(pool.map(run, keys))
            stock, patched, wrapped = ({**sleeping, **other} for sleeping, other in zip(runs, runs, strict=True))
        assert len(stock) == len(scripts) or len(stock) > 100
        return [name for name in stock if not stock[name] == patched.get(name) == wrapped.get(name)]

    found = different(all_scripts(trees["stock", True]))
    expected = set(SAY_NOT_FOUND[make.version])
    assert expected <= set(found)
    # The results of some scripts depend on which of two jobs ends first. A script that differs for
    # a reason always differs.
    for _ in range(SUITE_TRIES):
        if set(found) == expected:
            return
        found = different(found)
    assert set(found) == expected


def _always_wrapped(make: Path, directory: Path) -> Path:
    """Make a `make` that always has a MAKE_SHELL, which only runs the given shell."""
    shell = directory / "pass-on"
    shell.write_text(
        '#!/bin/sh\ns=$TERMITE_SHELL\nunset TERMITE_SHELL MAKE_TARGET MAKE_DEPS MAKE_TOLD\nexec "$s" "$@"\n'
    )
    wrapped = directory / "bin" / "make"
    wrapped.parent.mkdir()
    wrapped.write_text(f'#!/bin/bash\nexport MAKE_SHELL="{shell}"\nexec -a "$0" "{make}" "$@"\n')
    for script in (shell, wrapped):
        script.chmod(0o755)
    return wrapped
