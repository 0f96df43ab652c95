"""The preload library in real build tools, with a script in place of the launcher.

The script records its calls.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

LIMIT_S = 60

# Run the command, as the launcher does without a master. A `make` gets the library back, as after a
# verdict with Recurse.
STAND_IN = """\
#!/bin/bash
{ printf '%s\\t' "$@"; printf 'LD_PRELOAD=%s\\n' "${LD_PRELOAD-}"; } >> "$CALLS"
for word; do
    shift
    case $word in --exe=*) exe=${word#--exe=} ;; --) break ;; esac
done
case $exe in */make) export LD_PRELOAD=$TERMITE_PRELOAD ;; esac
exec -a "$1" "$exe" "${@:2}"
"""


@dataclass
class Desk:
    """A directory with a stand-in launcher, whose calls can be read as lists of words."""

    tree: Path
    library: Path

    @property
    def env(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "CALLS": str(self.tree / "calls"),
            "LD_PRELOAD": str(self.library),
            "TERMITE_PRELOAD": str(self.library),
            "TERMITE_LAUNCHER": str(self.tree / "stand-in"),
        }

    def run(self, *argv: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv,
            cwd=self.tree,
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    def plainly(self, *argv: str | Path) -> subprocess.CompletedProcess[str]:
        return self.run(*argv, LD_PRELOAD="", TERMITE_PRELOAD="", TERMITE_LAUNCHER="")

    def calls(self) -> list[list[str]]:
        path = self.tree / "calls"
        return [line.split("\t") for line in path.read_text().splitlines()] if path.exists() else []

    def commands(self) -> list[str]:
        """Return the last word of each call. For a shell, this is the command."""
        return [call[-2] for call in self.calls()]


@pytest.fixture
def desk(tree: Path, preload_library: Path) -> Desk:
    (tree / "stand-in").write_text(STAND_IN)
    (tree / "stand-in").chmod(0o755)
    return Desk(tree, preload_library)


def call(tool: str, exe: str, *argv: str) -> list[str]:
    return [f"--preload={tool}", f"--exe={exe}", "--search=0", "--", *argv, "LD_PRELOAD="]


# -- make -------------------------------------------------------------------------------------------------------------

MAKEFILE = r"""
SHELL := /bin/bash
FROM_SHELL := $(shell echo "shell $$BASH_VERSION" | cut -c1-6)
include made.mk
.PHONY: all simple sub
all: simple sub
	@echo "$(FROM_SHELL) $(MADE)"; [[ a == a ]] && echo "in bash"
	-@exit 3
	@printf '%s\n' 'tab	quote"$$x' "ünïcode"
simple: SHELL := /bin/sh
simple:
	echo simple words
	env
sub: SHELL := /bin/sh
sub:
	$(MAKE) --no-print-directory -f sub.mk
made.mk:
	echo 'MADE := made' > $@
"""


def test_make_does_the_same_and_its_commands_are_launcher_calls(desk: Desk) -> None:
    (desk.tree / "Makefile").write_text(MAKEFILE)
    (desk.tree / "sub.mk").write_text("all:\n\techo in sub-make\n")
    plain = desk.plainly("make")
    (desk.tree / "made.mk").unlink()
    made = desk.run("make")

    def without_env(text: str) -> list[str]:
        return [line for line in text.splitlines() if "=" not in line or "echo" in line]

    assert (made.returncode, without_env(made.stdout)) == (plain.returncode, without_env(plain.stdout))
    assert made.stderr == plain.stderr
    calls = desk.calls()
    assert call("make", "/bin/bash", "/bin/bash", "-c", "echo 'MADE := made' > made.mk") in calls  # then it re-executes
    assert call("make", "/bin/bash", "/bin/bash", "-c", "exit 3") in calls
    assert any(words[-3:-1] == ["simple", "words"] and words[4] == "echo" for words in calls)
    assert call("make", shutil.which("make") or "", "make", "--no-print-directory", "-f", "sub.mk") in calls
    assert any(words[-3:-1] == ["in", "sub-make"] for words in calls)
    assert all(words[-1] == "LD_PRELOAD=" for words in calls)


def test_no_command_of_make_sees_the_library(desk: Desk) -> None:
    (desk.tree / "Makefile").write_text("$(info [$(LD_PRELOAD)] [$(shell echo $$LD_PRELOAD)])\nall:\n\t@env\n")
    made = desk.run("make")
    assert made.stdout.splitlines()[0] == "[] []"
    assert not [line for line in made.stdout.splitlines() if line.startswith("LD_PRELOAD")]


def test_a_users_own_preload_stays(desk: Desk) -> None:
    (desk.tree / "Makefile").write_text("all:\n\t@echo [$$LD_PRELOAD]\n")
    own = shutil.copy(desk.library, desk.tree / "own.so")
    made = desk.run("make", LD_PRELOAD=f"{desk.library}:{own}")
    assert made.stdout == f"[{own}]\n"


def test_shell_flags_and_one_shell_recipes_arrive_untouched(desk: Desk) -> None:
    (desk.tree / "Makefile").write_text(
        ".ONESHELL:\n.SHELLFLAGS := -e -u -c\nall:\n\t@a=1\n\techo $$a\n\tfalse\n\techo no\n"
    )
    made = desk.run("make")
    assert (made.returncode, made.stdout) == (2, "1\n")
    (words,) = [line for line in (desk.tree / "calls").read_text().split("--preload=make") if line]
    assert words.split("\t")[4:8] == ["/bin/sh", "-e", "-u", "-c"]


def test_a_command_that_is_not_there_is_reported_in_makes_own_words(desk: Desk) -> None:
    (desk.tree / "Makefile").write_text("all:\n\tno-such-command x\n")
    made, plain = desk.run("make"), desk.plainly("make")
    assert (made.returncode, made.stderr) == (plain.returncode, plain.stderr)
    assert desk.calls() == []


@pytest.mark.parametrize("first_line", ["", "#!\n", "#! \t\n"])
def test_a_script_without_interpreter_is_left_to_make(desk: Desk, first_line: str) -> None:
    (desk.tree / "script").write_text(f"{first_line}echo from script $1\n")
    (desk.tree / "script").chmod(0o755)
    (desk.tree / "Makefile").write_text("all:\n\t./script x\n")
    made, plain = desk.run("make"), desk.plainly("make")
    assert (made.returncode, made.stdout, made.stderr) == (plain.returncode, plain.stdout, plain.stderr)


def elf_that_is_none(kind: str) -> bytes:
    """Return a file with the first bytes of an ELF program that the kernel does not start."""
    program = Path("/bin/true").read_bytes()
    other = 183 if program[18:20] == b"\x3e\0" else 62  # EM_AARCH64, EM_X86_64
    return {
        "text": b"\x7fELFgarbage\n",
        "head": b"\x7fELF\2\1\1",
        "cut": program[:200],
        "other machine": program[:18] + other.to_bytes(2, "little") + program[20:],
        "other size of a header": program[:54] + b"\1\0" + program[56:],
        "no program headers": program[:56] + b"\0\0" + program[58:],
    }[kind]


@pytest.mark.parametrize(
    "kind", ["text", "head", "cut", "other machine", "other size of a header", "no program headers"]
)
def test_an_elf_program_that_is_none_is_left_to_make(desk: Desk, kind: str) -> None:
    """make gives such a file to a shell, as any file that the kernel does not know."""
    (desk.tree / "program").write_bytes(elf_that_is_none(kind))
    (desk.tree / "program").chmod(0o755)
    (desk.tree / "Makefile").write_text("all: ; ./program x\n")
    made, plain = desk.run("make"), desk.plainly("make")
    assert (made.returncode, made.stdout, made.stderr) == (plain.returncode, plain.stdout, plain.stderr)
    assert [words[1] for words in desk.calls()] == ["--exe=/bin/sh"]


def test_parallel_make_with_sorted_output_does_the_same(desk: Desk) -> None:
    rules = "".join(f"t{i}:\n\t@echo begin {i}; echo error {i} >&2; echo end {i}\n" for i in range(20))
    (desk.tree / "Makefile").write_text(f"all: {' '.join(f't{i}' for i in range(20))}\n{rules}")
    made = desk.run("make", "-j4", "-Otarget")
    assert made.returncode == 0
    assert len(desk.calls()) == 20
    lines = made.stdout.splitlines()
    assert all(lines[i + 1] == line.replace("begin", "end") for i, line in enumerate(lines) if line.startswith("begin"))


def test_switched_off_the_library_does_nothing_and_no_command_sees_it(desk: Desk) -> None:
    (desk.tree / "Makefile").write_text("all:\n\t@echo [$$LD_PRELOAD]\n\t@env | grep -c LD_PRELOAD=; false\n")
    plain = desk.run("make", LD_PRELOAD="", TERMITE="off")
    off = desk.run("make", TERMITE="off")
    assert (off.returncode, off.stdout, off.stderr) == (plain.returncode, "[]\n0\n", plain.stderr)
    assert desk.calls() == []
    assert desk.run("make", TERMITE="on").returncode == 2 and len(desk.calls()) == 2


def test_a_launcher_that_is_gone_does_not_stop_make(desk: Desk) -> None:
    (desk.tree / "Makefile").write_text("all:\n\t@echo built\n")
    assert desk.run("make", TERMITE_LAUNCHER="/nowhere/termite").stdout == "built\n"


def test_arguments_that_only_just_fit_are_executed_plainly(desk: Desk) -> None:
    (desk.tree / "Makefile").write_text("all:\n\t@: $(X); echo built\n")
    longest = 128 * 1024 - 1
    made = desk.run("make", X="x" * (longest - len(": ; echo built") - 1))
    assert made.stdout == desk.plainly("make").stdout == "built\n"


def test_the_real_launcher_without_a_master_makes_no_difference(desk: Desk, launcher: Path) -> None:
    (desk.tree / "Makefile").write_text("all:\n\t@echo $$0; env\n\t+@$(MAKE) -s other\nother:\n\t@echo other; exit 4\n")
    made = desk.run("make", TERMITE_LAUNCHER=str(launcher))
    assert made.returncode == 2
    assert made.stdout.splitlines()[0] == "/bin/sh"
    assert "other" in made.stdout.splitlines()
    assert not [line for line in made.stdout.splitlines() if line.startswith(("LD_PRELOAD", "TERMITE_"))]


# -- ninja ------------------------------------------------------------------------------------------------------------

NINJA_FILE = """
rule show
  command = echo "$out ünïcode" && cat $out.rsp && env > $out
  rspfile = $out.rsp
  rspfile_content = response of $out
rule console
  command = echo console; touch $out
  pool = console
build one: show
build two: show one
build three: console two
"""

NINJAS = [path for path in ("/usr/bin/ninja", f"{sys.prefix}/bin/ninja") if Path(path).exists()]


@pytest.mark.parametrize("ninja", NINJAS)
def test_ninja_does_the_same_and_its_commands_are_launcher_calls(desk: Desk, ninja: str) -> None:
    (desk.tree / "build.ninja").write_text(NINJA_FILE)
    made = desk.run(ninja)
    assert (made.returncode, made.stderr) == (0, "")
    as_called = ["--preload=ninja", "--exe=/bin/sh", "--search=0", "--", "/bin/sh", "-c"]
    assert [words[:6] for words in desk.calls()] == [as_called] * 3
    assert [command.split()[1] for command in desk.commands()] == ['"one', '"two', "console;"]
    assert "LD_PRELOAD" not in (desk.tree / "one").read_text()
    assert "no work to do" in desk.plainly(ninja).stdout  # the commands in its log have not changed


@pytest.mark.parametrize("ninja", NINJAS)
def test_a_failing_command_fails_in_ninja(desk: Desk, ninja: str) -> None:
    (desk.tree / "build.ninja").write_text("rule r\n command = exit 3\nbuild x: r\n")
    made, plain = desk.run(ninja), desk.plainly(ninja)
    assert (made.returncode, made.stdout, made.stderr) == (plain.returncode, plain.stdout, plain.stderr)
    assert desk.commands() == ["exit 3"]


# -- every function there is ------------------------------------------------------------------------------------------

EXEC = ["execve", "execv", "execvp", "execvpe", "execl", "execlp", "execle"]


@pytest.fixture(scope="session")
def callers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("callers") / "callers"
    source = Path(__file__).parent / "exec_callers.c"
    subprocess.run(["cc", "-D_GNU_SOURCE", "-o", program, source], check=True, timeout=LIMIT_S)
    return program


@pytest.mark.parametrize("parent", ["fork", "vfork"])
@pytest.mark.parametrize("function", [*EXEC, "posix_spawn", "posix_spawnp"])
def test_a_child_is_wrapped_whatever_starts_it(desk: Desk, callers: Path, function: str, parent: str) -> None:
    words = ["sh", "-c", "echo $LD_PRELOAD done; exit 5"]
    run = desk.run(callers, function, parent, "/bin/sh", *words, TERMITE_PRELOAD_TOOLS="other callers")
    assert (run.returncode, run.stdout) == (5, "done\n")
    assert desk.calls() == [call("callers", "/bin/sh", *words)]


@pytest.mark.parametrize("function", EXEC)
def test_exec_in_the_tool_itself_keeps_the_library(desk: Desk, callers: Path, function: str) -> None:
    words = ["sh", "-c", "echo $LD_PRELOAD"]
    run = desk.run(callers, function, "here", "/bin/sh", *words, TERMITE_PRELOAD_TOOLS="callers")
    assert (run.returncode, run.stdout) == (0, f"{desk.library}\n")
    assert desk.calls() == []


@pytest.mark.parametrize("function", ["execvp", "execlp", "execvpe", "posix_spawnp"])
def test_a_program_without_a_slash_is_found_in_path(desk: Desk, callers: Path, function: str) -> None:
    (desk.tree / "bin").mkdir()
    (desk.tree / "bin" / "sh").mkdir()  # no program
    path = f"/nowhere:{desk.tree}/bin:/usr/bin"
    run = desk.run(callers, function, "vfork", "sh", "sh", "-c", "exit 5", TERMITE_PRELOAD_TOOLS="callers", PATH=path)
    assert run.returncode == 5
    assert desk.calls() == [call("callers", "/usr/bin/sh", "sh", "-c", "exit 5")]


@pytest.mark.parametrize("function", [*EXEC, "posix_spawn", "posix_spawnp"])
def test_what_cannot_be_executed_fails_as_ever(desk: Desk, callers: Path, function: str) -> None:
    (desk.tree / "plain").write_text("#!/bin/sh\n")
    for file, reason in (("/nowhere/x", "No such file or directory"), (f"{desk.tree}/plain", "Permission denied")):
        run = desk.run(callers, function, "vfork", file, "a", "b", "c", TERMITE_PRELOAD_TOOLS="callers")
        assert (run.returncode, run.stdout) == (98, f"failed: {reason}\n")
    assert desk.calls() == []


@pytest.mark.parametrize("function", [*EXEC, "posix_spawn", "posix_spawnp"])
def test_without_a_launcher_the_real_call_follows_only_if_it_may(desk: Desk, callers: Path, function: str) -> None:
    (desk.tree / "stand-in").unlink()
    words = ["/bin/sh", "sh", "-c", "exit 5"]
    may = desk.run(callers, function, "vfork", *words, TERMITE_PRELOAD_TOOLS="callers")
    assert (may.returncode, may.stderr) == (5, "")
    may_not = desk.run(callers, function, "vfork", *words, TERMITE_PRELOAD_TOOLS="callers", TERMITE_LOCAL="never")
    assert (may_not.returncode, may_not.stdout) == (98, "failed: No such file or directory\n")
    said = "termite: cannot start the launcher, and TERMITE_LOCAL=never forbids running the command on this machine\n"
    assert may_not.stderr == said


def test_any_other_program_is_left_alone(desk: Desk, callers: Path) -> None:
    run = desk.run(callers, "execve", "vfork", "/bin/sh", "sh", "-c", "echo $LD_PRELOAD")
    assert (run.returncode, run.stdout) == (0, f"{desk.library}\n")
    assert desk.calls() == []
