"""Running a stock build tool so that its commands reach the launcher. What all front ends share.

Whatever fails here, the build does not: it goes on without workers, after one line that says why. Every build waits for
what is imported here: dataclasses, typing and argparse would be 11 ms.
"""

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from termite.cli import client
from termite.cli.claims import wait_for_claims
from termite.cli.flags import EXIT_NOWHERE, VERSION
from termite.cli.front_ends.build_tools import check_preload, find_program, find_source, has_make_shell
from termite.cli.places import working_directory
from termite.engine.decide.logic.local_policy import LOCAL, NEVER, is_local_forbidden, local_policy_warning
from termite.engine.decide.logic.ties import tie_of
from termite.engine.errors import RemoteProtocolError, UserError, words_of
from termite.engine.host.native_programs import native_program

_WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGCHLD)
_BY_KILL = (0, -1)  # si_code of kill and sigqueue; a terminal's signals reach the whole group by themselves


class Tool:
    """A build tool's own flags, as far as they matter here.

    `with_word`: letters that take the rest of their word or else the next word; `with_rest`: only the rest.
    `dry` flags mean that nothing is built. `is_preloaded`: its commands come through the preload library, or MAKE_SHELL
    where it has `make-shell` among its `.FEATURES`; else a plugin knows how.
    """

    def __init__(
        self,
        name: str,
        with_word: str = "",
        with_rest: str = "",
        dry_letters: str = "",
        dry_words: frozenset[str] = frozenset(),
        directory_letter: str = "C",
        directory_word: str = "--directory",
        is_preloaded: bool = True,
    ) -> None:
        self.name = name
        self.with_word, self.with_rest = with_word, with_rest
        self.dry_letters, self.dry_words = dry_letters, dry_words
        self.directory_letter, self.directory_word = directory_letter, directory_word
        self.is_preloaded = is_preloaded

    def named(self, name: str) -> "Tool":
        """The same tool, called by another name."""
        return Tool(**{**vars(self), "name": name})


def run(tool: Tool, args: Sequence[str]) -> int:
    """Build, and end as the tool did."""
    if list(args) == ["--termite-help"]:
        print(_HELP.format(tool=tool.name, version=VERSION))
        return 0
    directory, is_dry = read_words(tool, args)
    if is_dry or not os.path.isdir(directory or "."):  # then the tool says so, in its own words
        return run_plainly([tool.name, *args])
    return build(tool, tool.name, args, directory)


def build(tool: Tool, program: str, args: Sequence[str], directory: str) -> int:
    """Build in `directory` with `program`, a file or a name in PATH; end as it did."""
    argv = [program, *args]
    if tie := tie_of(os.environ):  # all of its commands would be tied, too: no master is needed, and none is to blame
        say(f"{tie.words}: building locally")
        return run_plainly(argv)
    try:
        master, started, env = _prepare(tool, program, args, directory)
    except (UserError, RemoteProtocolError, OSError) as error:
        return build_locally(argv, error)
    status = _run_tool(started, env)
    _sum_up(master)
    return _end_as(status)


def build_locally(argv: Sequence[str], error: Exception) -> int:
    """Build as if termite were not there, after a line that says why; unless the user forbids that."""
    if is_local_forbidden(os.environ):
        say(f"{error}; {LOCAL}={NEVER} forbids to build locally")
        return EXIT_NOWHERE
    if warning := local_policy_warning(os.environ):
        say(warning)
    say(f"{error}: building locally")
    return run_plainly(argv)


def run_plainly(argv: Sequence[str]) -> int:
    """Run it as if termite were not there; end as it did."""
    return _end_as(_run_tool(argv, os.environ))


def read_words(tool: Tool, args: Sequence[str]) -> tuple[str, bool]:
    """Where the build takes place, and whether nothing is built.

    Only as much of the tool's command line as is needed, read as getopt does.
    """
    directory, is_dry = "", False
    rest = iter(args)
    for word in rest:
        if word == "--":
            break
        if word.startswith("--"):
            name, equals, content = word.partition("=")
            is_dry |= name in tool.dry_words
            if name == tool.directory_word:
                directory = os.path.join(directory, content if equals else next(rest, ""))
        elif word.startswith("-"):
            for at, letter in enumerate(word[1:], 2):
                is_dry |= letter in tool.dry_letters
                if letter in tool.with_rest:
                    break
                if letter in tool.with_word:
                    content = word[at:] or next(rest, "")
                    if letter == tool.directory_letter:
                        directory = os.path.join(directory, content)
                    break
    return directory, is_dry


def _prepare(
    tool: Tool, name: str, args: Sequence[str], directory: str
) -> tuple[client.Client, list[str], dict[str, str]]:
    """The connection to the master, as long as which the build lasts; what to start, and its environment."""
    program = find_program(name)
    reach = _reach(program, tool)
    started_in = working_directory()
    place = Path(os.path.realpath(started_in / directory))
    master = _find_or_start(place, started_in)
    reply = master.ask(
        "build-start", tool=tool.name, args=list(args), cwd=str(started_in), env=dict(os.environ), preload=reach
    )
    added: dict[str, str] = reply["env"]
    if not tool.is_preloaded:
        if "TERMITE_PRELOAD" in added:
            check_preload(program)
        # Its launchers may be started outside the tree: cargo does that for a crate that it has downloaded.
        added["TERMITE_SOCKET"] = str(master.path)
    if reply.get("bad_rules"):
        say(str(reply["bad_rules"]))
    return master, [name, *reply["argv"][1:]], {**os.environ, **added}


def _reach(program: Path, tool: Tool) -> dict[str, str]:
    """What to add to the environment of a make or ninja so that its commands reach the launcher."""
    if tool.name in ("make", "gmake") and has_make_shell(program):
        return {"MAKE_SHELL": str(native_program("termite-shell"))}
    if tool.is_preloaded:
        check_preload(program)
    return _preload(os.environ)


def _find_or_start(directory: Path, started_in: Path) -> client.Client:
    try:
        return client.connect(directory)
    except client.NoMaster:
        if os.environ.get("TERMITE_SOCKET"):
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


def _sum_up(master: client.Client) -> None:
    try:
        end = master.ask("build-end")
    except (UserError, RemoteProtocolError) as error:
        say(str(error))
        return
    parts = summary_parts(end)
    if len(parts) > 1 or os.environ.get("TERMITE_VERBOSE"):
        say("; ".join(parts))
    for named in end["named"]:
        say(named)


def summary_parts(end: client.Reply) -> list[str]:
    """What a build's summary says: where jobs ran, then whatever was not as it should be."""
    fallbacks: dict[str, int] = end["fallbacks"]
    tied: dict[str, int] = end.get("tied", {})
    short, local = end.get("short", 0), end["local"]
    by_rule = local - sum(fallbacks.values()) - sum(tied.values()) + end.get("failed", 0)
    here = f"{short + local} on this machine ({short} short commands, {by_rule} by rule)"
    parts = [f"{end['remote']} jobs on workers, {here}"]
    parts += [f"{count} on this machine: {words_of(tie)}" for tie, count in tied.items()]
    # Not "of these on this machine": with TERMITE_LOCAL=never they ran nowhere.
    parts += [f"{count} not run by a worker: {words_of(reason)}" for reason, count in fallbacks.items()]
    for key, text in (
        ("retried", "jobs were given to another worker"),
        ("dropped_writes", "files written outside the tree were dropped"),
        ("sockets_left", "sockets stayed on workers"),
        ("conflicts", "files were written by two jobs at once"),
        ("failed", "jobs could not be run"),
    ):
        if end.get(key):
            parts.append(f"{end[key]} {text}")
    return parts


def say(line: str) -> None:
    """A line of ours on stderr."""
    print(f"termite: {line}", file=sys.stderr, flush=True)


# -- the tool's process -----------------------------------------------------------------------------------------------


def _run_tool(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """The wait status of the tool, found in PATH. Signals that somebody sends us are meant for it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    sys.stdout.flush()
    try:
        # Python ignores these two; the tool must die of them as ever.
        unignored = (signal.SIGPIPE, signal.SIGXFSZ)
        child = os.posix_spawn(find_program(argv[0]), list(argv), env, setsigmask=(), setsigdef=unignored)
    except UserError as error:
        say(error.message)
        return 127 << 8
    except OSError as error:
        say(f"{argv[0]}: {error.strerror}")
        return (127 if isinstance(error, FileNotFoundError) else 126) << 8
    while True:
        received = signal.sigwaitinfo(_WATCHED)
        if received.si_signo != signal.SIGCHLD:
            if received.si_code in _BY_KILL:
                os.kill(child, received.si_signo)
            continue
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status


def _end_as(status: int) -> int:
    """The exit code; where the tool was killed by a signal, so are we."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
        os.kill(os.getpid(), number)
    return os.WEXITSTATUS(status)


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
    """A name for LD_PRELOAD, which splits at spaces and colons and expands `$`, and knows no quoting.

    Where the path has one of these it is a descriptor of ours, which lives as long as the build.
    """
    if not set(" :$").intersection(str(library)):
        return str(library)
    return f"/proc/{os.getpid()}/fd/{os.open(library, os.O_RDONLY)}"


_HELP = """termite-{tool} {version}: {tool}, with its commands run on other machines

usage: termite-{tool} [anything {tool} takes]

It uses the master that runs in this directory or above it, else it starts one that has a worker on this machine inside
and that goes away ten minutes after the last build.

  TERMITE_ROOT     what a new master lets commands write (default: the checkout, or this directory)
  TERMITE_SHORT    a new master's limit of short commands, which run here: milliseconds, 0: none (default: as measured)
  TERMITE_SOCKET   the master's socket, instead of looking for one; empty: none
  TERMITE_LOCAL    never: rather fail than run a command here because no worker can
  TERMITE_VERBOSE  1: always say at the end what ran where

Rules for what runs where: .termite-localrc beside the socket; `termite-ctl why COMMAND` explains.
`termite-ctl status` shows the workers. `{tool} --help` is {tool}'s own."""
