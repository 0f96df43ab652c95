"""Check this machine, and a farm if one is named, by real jobs."""

from argparse import Namespace

from termite.cli.parser import Parser
from termite.cli.subcommands.registry import Subcommand


def _add_flags(parser: Parser) -> None:
    from termite.cli.doctor.doctor_flags import add_doctor_flags

    add_doctor_flags(parser)


def _run(flags: Namespace) -> int:
    from termite.cli.doctor.doctor_command import run_doctor

    return run_doctor(flags)


SUBCOMMAND = Subcommand(
    "check this machine, and a farm if one is named",
    _run,
    _add_flags,
    more="Each fault is shown with the command that mends it. The exit code is 0 if all is well, 104 with warnings, "
    "and 105 with failures.",
    example="termite-ctl doctor -coordinator buildhost -secret secret.txt",
    bears_wrong_variables=True,
)
