"""The command termite-ctl: find the subcommand that the user has named, and run it.

The subcommands are in subcommands/; its docstring says how to add one.
"""

import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from termite.cli.flags import VERSION, run_command
from termite.cli.leftovers.footprints import start_sweep
from termite.cli.subcommands.registry import PROGRAM, command_list, find_subcommand, subcommand_parser
from termite.engine.decide.logic.switches import check_variables
from termite.engine.errors import UserError
from termite.engine.loop.readiness import wait_until_writable
from termite.engine.nearest_name import wrong_name

if TYPE_CHECKING:
    from typing_extensions import Buffer

_HELP_WORDS = ("help", "--help", "-help", "-h")
_VERSION_WORDS = ("--version", "-version")
HELP = """usage: termite-ctl COMMAND [ARGUMENT...]

Inspect and control the masters, the builds and the machines of termite.

{commands}

`termite-ctl help COMMAND` and `termite-ctl COMMAND --help` explain one of them.
`termite-ctl --version` prints the version.

Example:
  termite-ctl why gcc -c x.c"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command termite-ctl and return its exit code."""
    return run_command(PROGRAM, lambda: _run_whole(sys.argv[1:] if argv is None else list(argv)))


def _run_whole(argv: Sequence[str]) -> int:
    """Run the subcommand that the words name. If nobody reads its output any more, die of SIGPIPE.

    `termite-ctl status | head` then ends as other programs do. The signal is ignored until then:
    it would end us as well when the other end of a connection is closed.
    """
    plain = sys.stdout
    if plain is sys.__stdout__ and isinstance(plain, io.TextIOWrapper):
        sys.stdout = _writer_of(plain)
    try:
        return _run_and_flush(argv)
    except BaseException as error:
        # An error in a task comes in a group.
        if _within(error, BrokenPipeError):
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            signal.raise_signal(signal.SIGPIPE)
        if lost := _within(error, _OutputLostError):
            sys.stdout = plain  # it has nothing that the interpreter could not write at its end
            raise lost from None
        raise


def _run_and_flush(argv: Sequence[str]) -> int:
    try:
        code = run_words(argv)
    except SystemExit:  # it has printed its help
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return code


def _within(error: BaseException, kind: type[Exception]) -> Exception | None:
    """Return the error, or the first one in a group, that is of a kind. None: there is none."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for one in error.exceptions if (found := _within(one, kind))), None)
    return error if isinstance(error, kind) else None


class _OutputLostError(UserError):
    """The standard output cannot be written, as on a full disk."""


class _StandardOutput(io.FileIO):
    """The standard output, which raises _OutputLostError if it cannot be written."""

    def write(self, content: "Buffer") -> int:
        """Write a part of `content`, and return how long it is. Block while a pipe is full."""
        try:
            while (written := super().write(content)) is None:  # whoever started us may read without blocking
                wait_until_writable(self.fileno())
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _OutputLostError(f"the output cannot be written: {error.strerror}") from None
        return written


def _writer_of(output: io.TextIOWrapper) -> io.TextIOWrapper:
    """Return a writer for the descriptor of `output`, which writes any text in any encoding."""
    buffer: Any = io.BufferedWriter(cast(io.RawIOBase, _StandardOutput(output.fileno(), "w", closefd=False)))
    keeps_bytes = output.encoding == "utf-8" and output.errors == "surrogateescape"
    errors = "surrogateescape" if keeps_bytes else "backslashreplace"
    return io.TextIOWrapper(buffer, output.encoding, errors, line_buffering=output.isatty())


def run_words(argv: Sequence[str]) -> int:
    """Run the subcommand that the words name, and return its exit code."""
    if not argv:
        raise UserError("no command given", hint=f"see {PROGRAM} help")
    name, words = argv[0], argv[1:]
    if name in _HELP_WORDS:
        return _help(words)
    if name in _VERSION_WORDS:
        print(f"{PROGRAM} {VERSION}")
        return 0
    if name.startswith("-"):
        raise wrong_name("flag", f"-{name.lstrip('-')}", ["-help", "-version"], f"{PROGRAM} help")
    subcommand = find_subcommand(name)
    if not subcommand.bears_wrong_variables:
        check_variables(os.environ)
    try:
        return subcommand.run(subcommand_parser(name).parse_flags(words))
    finally:
        start_sweep()  # also if the command fails because a master was killed


def _help(words: Sequence[str]) -> int:
    """Print the help of a subcommand, or of termite-ctl if `words` is empty."""
    if len(words) > 1:
        raise UserError(f"usage: {PROGRAM} help [COMMAND]")
    print(subcommand_parser(words[0]).format_help().rstrip() if words else HELP.format(commands=command_list()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
