"""Open a shell on a worker, with the files, the directory and the environment of a job."""

import os
import re
from argparse import REMAINDER, Namespace
from collections.abc import Sequence
from pathlib import Path

from termite.cli.client import connect_here
from termite.cli.moved_trees.moves import join_here
from termite.cli.parser import Parser
from termite.cli.places import records_directory, working_directory
from termite.cli.subcommands.registry import Subcommand
from termite.engine.errors import UserError
from termite.engine.launch.vantage import own_vantage
from termite.engine.wire.protocol import launcher_frames
from termite.engine.wire.protocol.fields import pack_fields

ARGUMENTS = "[JOB] [-- COMMAND]"
PLAIN_SHELL = "/bin/sh"


def _add_flags(parser: Parser) -> None:
    parser.add_argument("--keep", action="store_true", help="bring home what the shell writes in the tree")
    parser.add_argument(
        "words", nargs=REMAINDER, metavar=ARGUMENTS, help="the number of a job; and what runs in place of the shell"
    )


def _run(flags: Namespace) -> int:
    """Return the exit code of the shell. Raise UserError if the master has gone."""
    from termite.cli.shell_conversation import Conversation, Screen

    job, keeps, command = what_is_wanted(flags)
    is_typed_at = os.isatty(0) and os.isatty(1)
    if not command and not is_typed_at:
        hint = "give a command to run it without a terminal: termite-ctl shell [JOB] -- COMMAND"
        raise UserError("a shell needs a terminal as its standard input and output", hint=hint)
    argv = command or [os.environ.get("SHELL") or PLAIN_SHELL]
    own = join_here()
    master = connect_here()
    recorded = _recorded_directory(job, own or master.path.parent) if job else None
    invocation = _invocation(job, keeps, argv, is_typed_at, recorded)
    connection = master.hand_over()
    connection.sendall(launcher_frames.frame(launcher_frames.INVOKE, invocation))
    with Screen(is_typed_at) as screen:
        return Conversation(connection, screen).run()


def what_is_wanted(flags: Namespace) -> tuple[int, bool, list[str]]:
    """Return the number of the job (0: none), whether results come home, and the command.

    Raise UserError for other words.
    """
    words: list[str] = flags.words
    end = words.index("--") if "--" in words else len(words)
    command, before = words[end + 1 :], words[:end]
    rest = [word for word in before if word not in ("-keep", "--keep")]
    is_job = len(rest) == 1 and bool(re.fullmatch(r"[1-9][0-9]{0,17}", rest[0], re.ASCII))
    if (rest and not is_job) or (end < len(words) and not command):
        usage = "usage: termite-ctl shell [-keep] [JOB] [-- COMMAND...]"
        raise UserError(usage, hint="JOB is the number of a job, which `termite-ctl jobs` shows")
    return int(rest[0]) if rest else 0, flags.keep or len(rest) < len(before), command


def _recorded_directory(job: int, root: Path) -> Path | None:
    """Return the directory of a job of the tree at `root` by its record, or None if there is none.

    Raise UserError if the directory is gone.
    """
    from termite.engine.history.past_builds import PastBuilds  # only some shells wait for this import

    record = PastBuilds(records_directory(root)).job(job)
    if record is None:
        return None
    if not os.path.isdir(record.cwd):
        raise UserError(f"the directory of job {job} is gone: {record.cwd}")
    return Path(record.cwd)


def _invocation(job: int, keeps: bool, argv: Sequence[str], is_typed_at: bool, recorded: Path | None) -> bytes:
    """Return the payload of the frame that asks for a shell; `recorded` is the job's directory."""
    kind = b"tty" if is_typed_at else b"other"
    directory = recorded or working_directory()
    vantage = own_vantage(str(directory))
    umask = os.umask(0)
    os.umask(umask)
    fields = {
        "v": launcher_frames.VERSION.encode(),
        "how": b"direct",
        "exe": os.fsencode(argv[0]),
        "search": b"1",
        "cwd": os.fsencode(directory),
        "umask": b"%03o" % umask,
        "stdin": b"null",
        "merge": b"1" if is_typed_at else b"0",
        "in": kind,
        "out": kind,
        "err": kind,
        "shell": b"%d" % job,
        "keep": b"1" if keeps else b"0",
        "recorded": b"1" if recorded else b"0",
        **{name: os.fsencode(getattr(vantage, name)) for name in vantage.__slots__},
    }
    if is_typed_at:
        from termite.cli.shell_conversation import window

        fields["window"] = window()
    words = [("arg", os.fsencode(word)) for word in argv]
    env = [("env", os.fsencode(f"{name}={text}")) for name, text in os.environ.items()]
    return pack_fields([*fields.items(), *words, *env])


SUBCOMMAND = Subcommand(
    "open a shell in a sandbox on a worker, to see what a job sees there",
    _run,
    _add_flags,
    more="It has the files, the directory and the environment of JOB, or of the tree. COMMAND runs in its place.",
    example="termite-ctl shell 12 -- gcc -v",
    takes_command=True,
)
