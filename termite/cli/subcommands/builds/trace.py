"""Write a build as a trace, for ui.perfetto.dev or Chrome."""

import json
import os
import stat
import tempfile
from argparse import Namespace
from pathlib import Path

from termite.cli.flags import print_line
from termite.cli.parser import Parser
from termite.cli.readers.recorded_builds import recorded_builds_here
from termite.cli.subcommands.builds.last import say_remarks
from termite.cli.subcommands.registry import Subcommand
from termite.engine.errors import UserError
from termite.engine.host.ownership import is_own_link


def _add_flags(parser: Parser) -> None:
    parser.add_argument("build", nargs="?", default="", metavar="BUILD", help="number; default: the newest build")
    parser.add_argument("-o", "--output", default="", metavar="FILE", help="the file to write; -: stdout")


def _run(flags: Namespace) -> int:
    from termite.cli.display.trace_events import trace_object

    records = recorded_builds_here()
    build = records.build(flags.build)
    trace = json.dumps(trace_object(build, records.past.jobs(build.id)), separators=(",", ":"))
    if flags.output == "-":
        print(trace)
    else:
        path = Path(flags.output or f"termite-build-{build.id}.trace.json")
        _write(path, trace)
        print_line("termite-ctl", f"{path}: open it at https://ui.perfetto.dev, or in Chrome at about:tracing")
    say_remarks(records)
    return 0


def _write(path: Path, text: str) -> None:
    """Write a file as a whole: after an error, an old file of this name is still there.

    A device or a FIFO stays what it is, and is written to. A symlink is followed, unless another
    user may have put it there.
    """
    try:
        is_link = is_own_link(path)
        mode = _mode_of(path, is_followed=is_link)
        if stat.S_ISREG(mode):
            _replace(Path(os.path.realpath(path)) if is_link else path, text, stat.S_IMODE(mode))
        else:
            kept = 0 if is_link else os.O_NOFOLLOW
            with open(path, "w", opener=lambda name, flags: os.open(name, flags & ~os.O_CREAT | kept)) as file:
                file.write(text)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def _mode_of(path: Path, *, is_followed: bool) -> int:
    """Return type and mode of a file, or those that a new one gets."""
    try:
        return path.stat(follow_symlinks=is_followed).st_mode
    except FileNotFoundError:
        return stat.S_IFREG | 0o600


def _replace(path: Path, text: str, mode: int) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(text)
            os.fchmod(file.fileno(), mode)  # not by name: the directory may be open to others
            file.close()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


SUBCOMMAND = Subcommand(
    "write a build as a trace, for Perfetto (ui.perfetto.dev) or Chrome",
    _run,
    _add_flags,
    more="The trace has a track for each slot, the phases of each job, and counters.",
    example="termite-ctl trace -o build.json",
)
