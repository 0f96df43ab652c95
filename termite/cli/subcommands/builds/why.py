"""Show where a command would run and which rule decides that, or where a recorded job has run."""

import os
import shutil
from argparse import REMAINDER, Namespace
from collections.abc import Sequence
from typing import cast

from termite.cli.client import connect_here
from termite.cli.moved_trees.moves import join_here
from termite.cli.parser import Parser
from termite.cli.readers.recorded_builds import RecordedBuilds, recorded_builds_here
from termite.cli.subcommands.builds.log import JOBS_HINT, doubt_lines, find_jobs
from termite.cli.subcommands.registry import Subcommand
from termite.engine.decide.logic.rules import readable_regexp
from termite.engine.decide.logic.switches import LOCAL, NEVER
from termite.engine.errors import UserError, words_of
from termite.engine.status.control_requests import AskWhy, ControlAnswer
from termite.engine.wire.protocol.foreign_text import LONGEST_LINE, printable


def _add_flags(parser: Parser) -> None:
    parser.add_argument(
        "command", nargs=REMAINDER, metavar="COMMAND", help="the command with its arguments; or a JOB, or a FILE"
    )


def _run(flags: Namespace) -> int:
    words = flags.command[1:] if flags.command[:1] == ["--"] else flags.command
    if not any(words):
        raise UserError("usage: termite-ctl why COMMAND... | JOB | FILE")
    if len(words) == 1 and _tell_of_job(words[0]):
        return 0
    if len(words) == 1 and words[0].isdecimal() and not shutil.which(words[0]):
        raise UserError(f"no job {words[0]} is recorded", hint=JOBS_HINT)
    command, notes = without_launcher(words)
    # One word with spaces is a command line that a build tool would give to the shell.
    if len(command) == 1 and " " in command[0]:
        command = ["/bin/sh", "-c", command[0]]
    tool = notes.pop("preload", "")
    records = _recorded()
    join_here()
    why = connect_here().ask(AskWhy(command, dict(os.environ), tool, notes))
    lines = [*why_lines(why), *_last_run(records, str(why["text"]))]
    lines = "\n".join(lines).split("\n")  # a command may have several lines
    print("\n".join(printable(line, LONGEST_LINE) for line in lines))
    return 0


def _tell_of_job(word: str) -> bool:
    """Show the recorded job that a number or a file names. Return False if there is none."""
    try:
        records = recorded_builds_here()
        found = records.find(word) if shutil.which(word) else find_jobs(records, word)
    except UserError:  # nothing was recorded, so the word is a command
        return False
    if found:
        from termite.cli.display.job_text import job_lines

        print("\n".join((*job_lines(found[0], str(records.tree)), *doubt_lines(records, word, found[0]))))
    return bool(found)


def _recorded() -> RecordedBuilds | None:
    try:
        return recorded_builds_here()
    except UserError:
        return None


def _last_run(records: RecordedBuilds | None, text: str) -> list[str]:
    """Return a line for the last recorded run of a command, if there is one."""
    job = next(iter(records.past.ran(text)), None) if records else None
    if job is None:
        return []
    from termite.cli.display.job_text import cause_text, end_text, place_text

    return [f"last run   job {job.id}: {place_text(job)}, {end_text(job)} (because {cause_text(job.cause)})"]


def without_launcher(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
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


def why_lines(why: ControlAnswer) -> list[str]:
    lines = [f"command    {why['text']}"]
    lines.append(f"plugin     {why['plugin'] or 'none: rules are matched with the command as you gave it'}")
    rule = cast(ControlAnswer | None, why["rule"])
    if why["nothing"]:
        return [*lines, "place      nowhere: it does nothing, so it succeeds at once"]
    took_s, short_s = cast(float | None, why.get("took_s")), cast(float, why.get("short_s", 0.0))
    if tied := cast(ControlAnswer | None, why["tied"]):
        reason, place = words_of(str(tied["reason"])), str(tied["place"])
        named = f"{reason}: {place}" if place else reason
        return [*lines, "place      local, whatever a rule says", f"reason     {named}"]
    if why["elsewhere"] and not why["local"]:
        place = f"nowhere: {LOCAL}={NEVER} forbids to run it" if why["forbidden"] else "local, whatever a rule says"
        return [*lines, f"place      {place}", f"reason     {words_of(str(why['elsewhere']))}"]
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
        lines.append(f"rules      {why['bad_rules']}")
    return lines


SUBCOMMAND = Subcommand(
    "show where a command would run, or why a recorded job ran where it did",
    _run,
    _add_flags,
    more="COMMAND may be a line that `make -n` or `ninja -v` prints, and may begin with termite. JOB is the number "
    "of a recorded job, and FILE a file that a recorded job has written on a worker.",
    example="termite-ctl why gcc -c x.c",
    takes_command=True,
)
