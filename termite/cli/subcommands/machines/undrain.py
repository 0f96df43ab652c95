"""Let a worker take jobs again that was drained."""

from argparse import Namespace

from termite.cli.subcommands.machines.drain import add_worker_flags, drain_worker
from termite.cli.subcommands.registry import Subcommand


def _run(flags: Namespace) -> int:
    code = drain_worker(flags, is_drained=False)
    print(f"{flags.worker} takes jobs")
    return code


SUBCOMMAND = Subcommand(
    "let a drained worker take jobs again",
    _run,
    add_worker_flags,
    example="termite-ctl undrain alpha:1235 -coordinator buildhost",
)
