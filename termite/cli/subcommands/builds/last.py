"""Show the last builds, or one of them."""

import json
import sys
from argparse import Namespace

from termite.cli.flags import print_line
from termite.cli.parser import Parser
from termite.cli.readers.recorded_builds import RecordedBuilds, recorded_builds_here
from termite.cli.subcommands.registry import Subcommand


def _add_flags(parser: Parser) -> None:
    parser.add_argument("build", nargs="?", default="", metavar="BUILD", help="number of a build; none: list all")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--json", action="store_true", help="print JSON: the list of builds, or one build with all its jobs"
    )
    form.add_argument("--github", action="store_true", help="print markdown, as for $GITHUB_STEP_SUMMARY")


def _run(flags: Namespace) -> int:
    from termite.cli.display.build_text import (
        BUILD_HEAD,
        build_line,
        build_lines,
        build_object,
        listed_object,
        markdown,
    )

    records = recorded_builds_here()
    newest = records.build(flags.build)
    if flags.github:
        sys.stdout.write(markdown(newest, records.past.jobs(newest.id)))
    elif flags.json and flags.build:
        print(json.dumps(build_object(newest, records.past.jobs(newest.id)), indent=2))
    elif flags.json:
        print(json.dumps([listed_object(build) for build in records.past.builds()], indent=2))
    elif flags.build:
        print("\n".join(build_lines(newest, records.past.jobs(newest.id))))
    else:
        print("\n".join([BUILD_HEAD, *map(build_line, records.past.builds())]))
    say_remarks(records)
    return 0


def say_remarks(records: RecordedBuilds) -> None:
    """Say on stderr which files of records are damaged."""
    for remark in records.remarks():
        print_line("termite-ctl", remark)


SUBCOMMAND = Subcommand(
    "show the last builds, or one of them with its slowest jobs",
    _run,
    _add_flags,
    more="The records of the last 20 builds are kept, at most 64 MiB. No master need run.",
    example="termite-ctl last 17",
)
