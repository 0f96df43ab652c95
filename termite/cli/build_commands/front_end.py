"""Parts that all front ends share: run a stock build tool so that its commands reach the launcher.

An error in this module never fails the build: the build runs without workers, after one line that
says why. Every build waits for the imports of this module; dataclasses, typing and argparse alone
would take 11 ms. The needs of one build tool are met in its plugin (termite/plugins/), not here.
"""

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from termite.cli import client
from termite.cli.build_commands.build_tools import check_preload, find_program, find_source, has_make_shell, is_there
from termite.cli.build_commands.summary_lines import (
    edge_lines,
    pages_lines,
    path_lines,
    place_lines,
    start_lines,
    summary_parts,
)
from termite.cli.build_commands.tool_process import ENDING, end_as, run_process
from termite.cli.build_commands.unseen_programs import unseen_lines
from termite.cli.claims import wait_for_claims
from termite.cli.flags import VERSION, print_line
from termite.cli.leftovers.footprints import start_sweep
from termite.cli.moved_trees.marks import check_directory
from termite.cli.moved_trees.own_words import take_at
from termite.cli.places import working_directory
from termite.engine.decide.logic.switches import LOCAL, NEVER, check_variables, is_local_forbidden, is_switched_off
from termite.engine.decide.logic.ties import tie_of
from termite.engine.errors import ExitCode, Reason, RemoteProtocolError, UserError, words_of
from termite.engine.host.native_programs import native_program
from termite.engine.nearest_name import wrong_name
from termite.engine.status.control_requests import BeginBuild, ControlAnswer, EndBuild

TYPE_CHECKING = False  # not typing's: every build waits for this import
if TYPE_CHECKING:
    from termite.cli.moved_trees.moves import MovedTree

DIRECTORY_LETTER, DIRECTORY_WORD = "C", "--directory"  # of make and ninja: build in that directory
# The user who has pressed Ctrl-C waits for nothing more. A build ends within 2 s of it, and the
# launchers may need 1.5 s of that.
INTERRUPTED_S = 0.3


class Tool:
    """A build tool, with those of its flags that a front end must understand.

    The letters of `with_word` take the rest of their word, or else the next word, as their value.
    The letters of `with_rest` take only the rest of their word. With a flag of `dry_letters` or
    `dry_words` the tool builds nothing.
    If `is_preloaded`, the tool's commands reach the launcher by the preload library, or by
    MAKE_SHELL if the tool lists `make-shell` in its `.FEATURES`. Otherwise a plugin knows the way.
    """

    def __init__(
        self,
        name: str,
        with_word: str = "",
        with_rest: str = "",
        dry_letters: str = "",
        dry_words: frozenset[str] = frozenset(),
        is_preloaded: bool = True,
    ) -> None:
        self.name = name
        self.with_word, self.with_rest = with_word, with_rest
        self.dry_letters, self.dry_words = dry_letters, dry_words
        self.is_preloaded = is_preloaded

    def named(self, name: str) -> "Tool":
        """Return this tool under another name."""
        return Tool(**{**vars(self), "name": name})


def run_tool(tool: Tool, args: Sequence[str]) -> int:
    """Build with `args` and return the tool's exit code, or die of the signal that killed it."""
    if "--termite-help" in args:
        from termite.cli.build_commands.front_end_help import tool_help

        print(tool_help(tool.name))
        return 0
    check_own_flags(args, f"termite-{tool.name}")
    at, args = take_at(args)
    if is_switched_off(os.environ) and not at:
        return run_plainly([tool.name, *args])
    directory, is_dry = read_words(tool, args)
    if is_dry or not os.path.isdir(directory or "."):  # then the tool itself reports it
        is_asked = "--version" in args or ("v" in tool.dry_letters and "-v" in args)
        argv = command_at([tool.name, *args], at, directory, is_dry=True)
        return run_plainly(argv, f"termite-{tool.name}" if is_asked else "")
    return build_with(tool, tool.name, args, directory, at)


def check_own_flags(args: Sequence[str], program: str) -> None:
    """Raise UserError for a word that looks like a flag of termite's own, and is none."""
    for word in args:
        if word.startswith("--termite"):
            raise wrong_name("flag", word, ["--termite-help"], f"{program} --termite-help")


def build_with(tool: Tool, program: str, args: Sequence[str], directory: str, at: str = "") -> int:
    """Build in `directory` and return the tool's exit code, or die of the signal that killed it.

    `program` is a path, or a name in PATH. `directory` is "" for the current directory. `at` is the
    path at which the tree is built ("": its own).
    Raise UserError if a variable of termite has no meaning, if the tree is built elsewhere, or if
    its rules have a mistake.
    """
    argv = [program, *args]
    if is_switched_off(os.environ):
        return run_plainly(command_at(argv, at, directory))
    check_variables(os.environ)
    if not is_there(program):
        return run_plainly(argv)  # one line says so
    if not at:
        refuse_elsewhere(directory)
    # All commands of the build would be tied, too, so no master is needed. TERMITE_LOCAL=never does
    # not forbid this, because no worker failed.
    if tie := tie_of(os.environ):
        say(f"started without workers: {tie.words}")
        return run_plainly(command_at(argv, at, directory))
    start_sweep()  # before the paths of other trees may be hidden
    moved = _enter_for_build(at, directory)
    if moved:
        argv, directory = [moved.text.word(word) for word in argv], moved.text.word(directory)
    try:
        master, started, env = _prepare(tool, argv[0], argv[1:], directory, may_start=moved is None)
    except (UserError, RemoteProtocolError, OSError) as error:
        if isinstance(error, UserError) and error.reason in (Reason.OTHER_PATH, Reason.BAD_RULES):
            raise
        return build_locally(argv, error)
    if moved:
        master.tree = moved.own
    for line in pages_lines(master.tree):
        say(line)
    status, is_interrupted = run_process(started, env, master.pid)
    _sum_up(master, status, INTERRUPTED_S if is_interrupted else client.BUILD_ANSWER_S)
    return end_as(status)


def refuse_elsewhere(directory: str) -> None:
    """Raise UserError if the tree of `directory` is built at another path than its own."""
    try:
        started_in = working_directory()
    except UserError:  # it was removed, which is reported later
        return
    check_directory(Path(os.path.realpath(started_in / directory)))


def command_at(argv: Sequence[str], at: str, directory: str, *, is_dry: bool = False) -> list[str]:
    """Return a command, whose tree stands at `at` from now on, unless that is "".

    There will be no master. If `is_dry`, the command builds nothing. Raise UserError if that is
    impossible.
    """
    if not at:
        return list(argv)
    from termite.cli.moved_trees import moves

    moved = moves.enter_alone(at, directory, is_dry=is_dry)
    return [moved.text.word(word) for word in argv] if moved else list(argv)


def _enter_for_build(at: str, directory: str) -> "MovedTree | None":
    if not at:
        return None
    from termite.cli.moved_trees import moves

    return moves.enter_for_build(at, directory)


def build_locally(argv: Sequence[str], error: Exception) -> int:
    """Build as if termite were not there, after one line that says why.

    If the user forbids that, return exit code 103 instead.
    """
    if is_local_forbidden(os.environ):
        say(f"{error}; {LOCAL}={NEVER} forbids building locally")
        return ExitCode.NOWHERE
    say(f"started without workers: {error}")
    if file := os.environ.get("TERMITE_SUMMARY"):
        say(f"{file} is not written: no master has recorded this build")
    return run_plainly(argv)


def run_plainly(argv: Sequence[str], versioned: str = "") -> int:
    """Run a command as if termite were not there, and end as the command did.

    `versioned` is the front end that was asked for its version, "" if none was. This version stands
    on stderr, because programs read the tool's own from stdout.
    """
    status = run_process(argv, os.environ)[0]
    if versioned:
        say(f"{versioned} {VERSION}")
    return end_as(status)


def read_words(tool: Tool, args: Sequence[str]) -> tuple[str, bool]:
    """Return the directory of the build ("": the current one), and True if nothing is built.

    The tool's command line is read as getopt reads it.
    """
    directory, is_dry = "", False
    rest = iter(args)
    for word in rest:
        if word == "--":
            break
        if word.startswith("--"):
            name, equals, content = word.partition("=")
            is_dry |= name in tool.dry_words
            if name == DIRECTORY_WORD:
                directory = os.path.join(directory, content if equals else next(rest, ""))
        elif word.startswith("-"):
            for at, letter in enumerate(word[1:], 2):
                is_dry |= letter in tool.dry_letters
                if letter in tool.with_rest:
                    break
                if letter in tool.with_word:
                    content = word[at:] or next(rest, "")
                    if letter == DIRECTORY_LETTER:
                        directory = os.path.join(directory, content)
                    break
    return directory, is_dry


def _prepare(
    tool: Tool, name: str, args: Sequence[str], directory: str, *, may_start: bool
) -> tuple[client.Client, list[str], dict[str, str]]:
    """Announce a build: return the connection to the master, the command to start, its environment.

    The build lasts until that connection is closed. Raise NoMaster if there is no master, and none
    `may_start`.
    """
    program = find_program(name)
    reach = _reach(program, tool)
    started_in = working_directory()
    place = Path(os.path.realpath(started_in / directory))
    master = _find_or_start(place, started_in) if may_start else client.connect(place)
    request = BeginBuild(tool.name, list(args), dict(os.environ), reach, os.getpid())
    request.cwd = str(started_in)
    reply = master.ask(request, client.BUILD_ANSWER_S)
    if elsewhere := reply.get("elsewhere"):
        raise UserError(words_of(elsewhere), hint="termite-ctl shutdown ends the master")
    added: dict[str, str] = reply["env"]
    if not tool.is_preloaded:
        if "TERMITE_PRELOAD" in added:
            check_preload(program)
        # The tool may start launchers outside the tree: cargo does so for a crate that it has
        # downloaded.
        added["TERMITE_SOCKET"] = str(master.path)
    for line in start_lines(reply):
        say(line)
    return master, [name, *reply["argv"][1:]], {**os.environ, **added}


def _reach(program: Path, tool: Tool) -> dict[str, str]:
    """Return the variables that make the commands of a make or ninja reach the launcher."""
    if tool.name in ("make", "gmake") and has_make_shell(program):
        return {"MAKE_SHELL": str(native_program("termite-shell"))}
    if tool.is_preloaded:
        check_preload(program)
    return _preload(os.environ)


def _find_or_start(directory: Path, started_in: Path) -> client.Client:
    named = os.environ.get("TERMITE_SOCKET")
    if named == "":
        raise client.NoMaster("TERMITE_SOCKET is empty, which means that no master is used")
    try:
        return client.connect(directory)
    except client.NoMaster:
        if named:
            raise
    if wait_for_claims(directory):
        with contextlib.suppress(client.NoMaster):
            return client.connect(directory)
    source = find_source(directory) or directory
    root = client.choose_root(directory, started_in, source)
    master, is_ours = client.start_embedded(root, exports=[] if source.is_relative_to(root) else [source])
    if is_ours:
        say(f"started a master for {root}, with a worker on this machine (termite-ctl shutdown ends it)")
    return master


def _sum_up(master: client.Client, status: int, patience_s: float) -> None:
    """Tell the master the wait status of the tool, and print the summary of the build.

    There is no summary if the master gives none within `patience_s`. Ctrl-C ends the wait, because
    the tool has ended already.
    """
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        code = os.waitstatus_to_exitcode(status)
        end = master.ask(EndBuild(code if code >= 0 else -1, max(-code, 0)), patience_s)
    except KeyboardInterrupt:
        return
    except (UserError, RemoteProtocolError) as error:
        say(f"this build gets no summary: {error}")
        return
    for line in end_lines(end, is_verbose=bool(os.environ.get("TERMITE_VERBOSE"))):
        say(line)
    if file := os.environ.get("TERMITE_SUMMARY"):
        from termite.cli.written_files.summary_file import write_summary

        for trouble in write_summary(Path(file), master.tree, str(end.get("build", 0))):
            say(trouble)
    for line in pages_lines(master.tree):
        say(line)


def end_lines(end: ControlAnswer, *, is_verbose: bool) -> list[str]:
    """Return the lines of a build's summary.

    If all went as it should, there are none, unless `is_verbose`.
    """
    many, few = place_lines(end)
    unseen = unseen_lines(end)
    parts = summary_parts(end)
    summary = ["; ".join(parts)] if len(parts) > 1 or is_verbose else []
    return [*many, *unseen, *summary, *edge_lines(end), *few, *path_lines(end)]


def say(line: str) -> None:
    """Print one line of termite on stderr."""
    print_line("termite", line)


def _preload(env: Mapping[str, str]) -> dict[str, str]:
    library = loadable_name(native_program("libtermite-exec.so"))
    ours = (library, env.get("TERMITE_PRELOAD"))
    users = [entry for entry in env.get("LD_PRELOAD", "").replace(":", " ").split() if entry not in ours]
    return {
        "LD_PRELOAD": ":".join([library, *users]),
        "TERMITE_PRELOAD": library,
        "TERMITE_LAUNCHER": str(native_program("termite")),
    }


def loadable_name(library: Path) -> str:
    """Return a name of `library` that LD_PRELOAD can hold.

    LD_PRELOAD is split at spaces and colons, `$` in it is expanded, and nothing can be quoted. If
    the path has such a character, the name is a descriptor of this process, which lives as long as
    the build.
    """
    if not set(" :$").intersection(str(library)):
        return str(library)
    return f"/proc/{os.getpid()}/fd/{os.open(library, os.O_RDONLY)}"
