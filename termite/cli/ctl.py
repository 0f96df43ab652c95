"""The command termite-ctl: inspect and control the master of the tree that the user is in."""

import contextlib
import json
import os
import secrets
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from termite.cli import client
from termite.cli.flags import run_command
from termite.cli.leftovers.footprints import start_sweep
from termite.cli.parser import Parser
from termite.cli.places import working_directory
from termite.cli.shell import open_shell
from termite.engine.decide.logic.rules import readable_regexp
from termite.engine.errors import UserError, words_of
from termite.engine.wire.protocol.foreign_text import LONGEST_LINE, printable

PROGRAM = "termite-ctl"
_HELP = (["--help"], ["-help"], ["-h"])
SECRET_BYTES = 32
OF_A_LEASE = ("OpenLease", "Ping", "SetSlots")  # requests that belong to a lease, not to a job
USAGE = """commands:
  secret [FILE]     make the file with a cluster's secret (default: secret.txt)
  start [DIR]       start a master for DIR that has a worker of its own (default: the tree that
                    termite-make would choose)
  status [--json]   show the workers, and counters of jobs and traffic
  why COMMAND...    show where a command would run, and which rule decides that; COMMAND may be
                    a line that `make -n` or `ninja -v` prints, and may begin with termite
  refresh           check the files outside the tree, such as the compiler, for changes
  shutdown          end the master; jobs that run on workers are stopped, and start again here
  shell [JOB]       open a shell in a sandbox on a worker, with the files, the directory and the
                    environment of a job, or of the tree; --keep brings home what it writes, and
                    -- COMMAND runs a command in its place
  doctor            check that this machine can run jobs
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command termite-ctl and return its exit code."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `termite-ctl status | head` ends as other programs do
    return run_command(PROGRAM, lambda: _run(sys.argv[1:] if argv is None else list(argv)))


def _run(argv: Sequence[str]) -> int:
    parser = Parser(PROGRAM, "Inspect and control the master of the tree that you are in.", f"{PROGRAM} why gcc -c x.c")
    parser.epilog = f"{USAGE}\n{parser.epilog}"
    parser.add_argument("command", choices=sorted(COMMANDS), help="one of the commands below")
    # Flags after the command belong to it: in `why gcc --version` the flag is gcc's. Only
    # `why --help` asks for our help.
    words = parser.parse_flags(argv[1:2] if argv[1:2] in _HELP else argv[:1])
    try:
        return COMMANDS[words.command](argv[1:])
    finally:
        start_sweep()  # also if the command fails because a master was killed


def _secret(args: Sequence[str]) -> int:
    path = Path(_at_most_one(args, "secret [FILE]") or "secret.txt")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UserError(f"{path} exists already", hint="use it, or remove it first") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    with os.fdopen(fd, "w") as file:
        file.write(secrets.token_hex(SECRET_BYTES) + "\n")
    print(f"made {path}: copy it to every machine of the cluster, and keep it readable by you alone")
    return 0


def _start(args: Sequence[str]) -> int:
    given = _at_most_one(args, "start [DIR]")
    here = Path(os.path.realpath(given if os.path.isabs(given) else working_directory() / given))
    if not here.is_dir():
        raise UserError(f"{here} is not a directory")
    root = here if given else client.choose_root(here, here)
    try:
        master = client.Client(root / client.SOCKET)
    except client.NoMaster:
        _, is_ours = client.start_embedded(root)
        more = ", with a worker on this machine; it ends when idle for ten minutes" if is_ours else " already"
        print(f"a master serves {root}{more}")
    else:
        if elsewhere := master.ask("status")["elsewhere"]:
            trouble = f"a master serves {root} already, but termite-ctl was {elsewhere}"
            raise UserError(trouble, hint="end it first with `termite-ctl shutdown`")
        print(f"a master serves {root} already")
    return 0


def _status(args: Sequence[str]) -> int:
    if list(args) not in ([], ["--json"], ["-json"]):
        raise UserError("usage: termite-ctl status [--json]")
    status = _connect().ask("status")
    print(json.dumps(status, indent=2) if args else _status_text(status))
    return 0


def _why(args: Sequence[str]) -> int:
    words = args[1:] if args[:1] == ["--"] else args
    if not any(words):
        raise UserError("usage: termite-ctl why COMMAND...")
    command, notes = _without_launcher(words)
    # One word with spaces is a command line that a build tool would give to the shell.
    if len(command) == 1 and " " in command[0]:
        command = ["/bin/sh", "-c", command[0]]
    tool = notes.pop("preload", "")
    why = _connect().ask("why", argv=command, env=dict(os.environ), tool=tool, notes=notes)
    lines = "\n".join(_why_lines(why)).split("\n")  # a command may have several lines
    print("\n".join(printable(line, LONGEST_LINE) for line in lines))
    return 0


def _without_launcher(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the command that the launcher would run, and the notes in front of it.

    From `termite --cmake=link -- ld x`, return `ld x` and the note `cmake`: `link`.
    """
    notes: dict[str, str] = {}
    rest = list(words)
    if rest[0].rpartition("/")[2] != "termite" or len(rest) == 1:
        return rest, notes
    rest.pop(0)
    while len(rest) > 1 and rest[0].startswith("--"):
        name, _, text = rest.pop(0).removeprefix("--").partition("=")
        if not name:
            break
        notes[name] = text
    return rest, notes


def _refresh(args: Sequence[str]) -> int:
    _nothing_more(args, "refresh")
    reply = _connect().ask("refresh")
    print(f"all files that workers have seen were checked; the journal is at entry {reply['journal']}")
    return 0


def _shutdown(args: Sequence[str]) -> int:
    _nothing_more(args, "shutdown")
    master = _connect()
    with contextlib.suppress(client.NoMaster):  # it may end before it answers
        master.ask("shutdown")
    master.wait_for_its_end()
    return 0


def _doctor(args: Sequence[str]) -> int:
    _nothing_more(args, "doctor")
    from termite.engine.host import preflight
    from termite.engine.host.native_programs import native_program

    sandbox = native_program("termite-sandbox")
    machine = preflight.read_machine()
    preflight.check_machine(machine)
    root = os.geteuid() == 0
    preflight.check_fuse(root=root)
    preflight.check_sandbox(sandbox, None)
    scratch = "memory" if preflight.has_tmpfs_upper(machine.kernel) else "disk"
    print(f"this machine can run jobs (Linux {machine.kernel}, scratch files in {scratch})")
    unfiltered = preflight.why_calls_are_not_denied(sandbox)
    if unfiltered:
        print(f"jobs may make system calls that no build needs: {unfiltered}")
    else:
        print("jobs are denied system calls that no build needs")
    print(_SOCKET_GUARDS[preflight.socket_guard(sandbox)])
    return 0


_SOCKET_GUARDS = {
    "landlock": "jobs cannot reach abstract sockets outside of themselves, because Landlock forbids it",
    "namespaces": "jobs cannot reach abstract sockets outside of themselves, because each has a network namespace "
    "(this kernel has no Landlock ABI 6 of Linux 6.12); only jobs with a Network rule reach those of this machine",
}


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "secret": _secret,
    "start": _start,
    "status": _status,
    "why": _why,
    "refresh": _refresh,
    "shutdown": _shutdown,
    "shell": open_shell,
    "doctor": _doctor,
}


def _connect() -> client.Client:
    return client.connect(working_directory())


def _at_most_one(args: Sequence[str], usage: str) -> str:
    if len(args) > 1 or (args and args[0].startswith("-")):
        raise UserError(f"usage: {PROGRAM} {usage}")
    return args[0] if args else ""


def _nothing_more(args: Sequence[str], command: str) -> None:
    if args:
        raise UserError(f"usage: {PROGRAM} {command}")


def _status_text(status: client.Reply) -> str:
    jobs = cast(dict[str, int], status["jobs"])
    slots = cast(dict[str, int], status["slots"])
    local = cast(dict[str, int], status["local_slots"])
    short = jobs.get("short", 0)
    rows = [
        ("tree", str(status["root"])),
        (
            "jobs",
            f"{jobs['remote']} on workers, {jobs['local'] + short} on this machine ({short} of them short), "
            f"{jobs['running']} running, {status['waiting']} waiting",
        ),
        ("", f"{jobs['retried']} retried, {jobs['failed']} could not be run, {jobs['answered']} had nothing to do"),
        (
            "slots",
            f"{slots['busy']} of {slots['leased']} busy on workers; {local['busy']} of {local['count']} here",
        ),
        ("traffic", f"{_bytes(status['bytes_sent'])} sent, {_bytes(status['bytes_received'])} received"),
        ("", _requests_text(status)),
        (
            "results",
            f"{status['dropped_writes']} writes outside the tree dropped, "
            f"{status.get('sockets_left', 0)} sockets left on workers, {status['conflicts']} files written by two jobs",
        ),
    ]
    for row, counts in (("fell back", status["fallbacks"]), ("retried", status["retries"])):
        rows += [(row, f"{count} times: {words_of(reason)}") for reason, count in cast(dict[str, int], counts).items()]
    tied = cast(dict[str, int], status["tied"])
    rows += [("here", f"{count} commands {words_of(tie)}") for tie, count in tied.items()]
    for worker in cast(list[client.Reply], status["workers"]):
        rows.append(("worker", f"{worker['name']}: {worker['running']} of {worker['slots']} slots busy"))
    if not status["workers"]:
        known = ", ".join(cast(list[str], status["known_workers"]))
        rows.append(("worker", f"none leased; known: {known or 'none'}"))
    if status["elsewhere"]:
        rows.append(("elsewhere", f"termite-ctl was {status['elsewhere']}: builds that start here run on this machine"))
    if status["trouble"]:
        rows.append(("trouble", str(cast(client.Reply, status["trouble"])["text"])))
    return "\n".join(f"{name:<10}{printable(text, LONGEST_LINE)}" for name, text in rows)


def _requests_text(status: client.Reply) -> str:
    """Return the mean number of requests of a job: to the worker's mirror, and on the wire."""
    remote = cast(dict[str, int], status["jobs"])["remote"]
    if not remote:
        return "no remote job yet"
    messages = cast(dict[str, int], status["messages"])
    on_wire = sum(count for kind, count in messages.items() if kind not in OF_A_LEASE)
    fuse = cast(int, status["fuse_requests"])
    return f"per remote job: {fuse / remote:.1f} FUSE requests, {on_wire / remote:.1f} requests on the wire"


def _why_lines(why: client.Reply) -> list[str]:
    lines = [f"command    {why['text']}"]
    lines.append(f"plugin     {why['plugin'] or 'none: rules are matched with the command as you gave it'}")
    rule = cast(client.Reply | None, why["rule"])
    if why["nothing"]:
        return [*lines, "place      nowhere: it does nothing, so it succeeds at once"]
    took_s, short_s = cast(float | None, why.get("took_s")), cast(float, why.get("short_s", 0.0))
    reason = str(why["tied"] or ("" if why["local"] else why["elsewhere"]))
    if reason:
        return [
            *lines,
            "place      local, whatever a rule says",
            f"reason     it {'was ' if reason.startswith('started') else ''}{reason}",
        ]
    is_short = rule is None and took_s is not None and took_s < short_s
    if is_short:
        lines.append("place      local while a core is free, else remote")
        took_ms, limit_ms = 1000 * (took_s or 0), 1000 * short_s
        lines.append(f"short      it took {took_ms:.0f} ms on a worker; commands below {limit_ms:.0f} ms are short")
    else:
        lines.append(f"place      {'local' if why['local'] else 'remote'}")
    if rule is None:
        lines.append("rule       none matches" + ("" if is_short else ", so it runs remotely"))
    else:
        flags = [name for name in ("recurse", "skip_refresh", "network", "trusted") if rule[name]]
        source = ", ".join([str(rule["source"]), *flags])
        lines.append(f"rule       {readable_regexp(str(rule['regexp']))}  ({source})")
    if not why["local"]:
        lines.append(
            f"workers    {', '.join(cast(list[str], why['workers'])) or 'none is known, so it would run here'}"
        )
    if why["bad_rules"]:
        lines.append(f"rules      {why['bad_rules']}; the last good rules stay in force")
    return lines


def _bytes(count: object) -> str:
    size = float(cast(int, count))
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


if __name__ == "__main__":
    raise SystemExit(main())
