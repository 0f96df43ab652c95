"""Show everything that was recorded of a job, which a number or a file names."""

import json
from argparse import Namespace

from termite.cli.parser import Parser
from termite.cli.readers.recorded_builds import recorded_builds_here
from termite.cli.subcommands.builds.last import say_remarks
from termite.cli.subcommands.registry import Subcommand
from termite.engine.errors import UserError
from termite.engine.history.logic.job_record import as_object


def _add_flags(parser: Parser) -> None:
    parser.add_argument("job", metavar="JOB | FILE", help="number of a job, or a file that a job has written")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run(flags: Namespace) -> int:
    from termite.cli.display.job_text import job_lines

    records = recorded_builds_here()
    found = records.find(flags.job)
    if not found:
        raise UserError(
            f"no recorded job is or wrote {flags.job}",
            hint="termite-ctl jobs lists those of the last build; commands that ran here name no files",
        )
    if flags.json:
        print(json.dumps(as_object(found[0]), indent=2))
    else:
        print("\n".join(job_lines(found[0], str(records.tree))))
        if others := ", ".join(str(job.id) for job in found[1:6]):
            print(f"earlier   {others}")
    say_remarks(records)
    return 0


SUBCOMMAND = Subcommand(
    "show everything that was recorded of one job, with the end of its output",
    _run,
    _add_flags,
    more="A file names the job that wrote it last.",
    example="termite-ctl log build/x.o",
)
