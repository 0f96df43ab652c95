"""Tests of the form of all lines that termite adds to a build which ends well.

After `termite: ` stands `started`, or a number of jobs or commands. Whoever compares the stderr of
builds, or looks for errors in it, can thus leave these lines out.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from termite.cli.build_commands.front_end import end_lines
from termite.cli.build_commands.summary_lines import pages_lines, start_lines
from termite.engine.errors import Reason
from termite.engine.status.report import Counters, PathEvent, build_summary

TOP = Path(__file__).parents[3]
FORM = re.compile(r"(?:started|\d+ commands?|\d+ jobs?)(?= )")
# A name in braces, or a format of C, stands for a value.
LITERAL = re.compile(r"\"termite: ([^\"\n]*)")
FORM_OF_LITERAL = re.compile(r"(?:started|(?:\d+|%\S+) (?:commands?|jobs?))(?= )")
# A user has to act because of these, or the command has failed.
ERRORS = {
    "termite/engine/master/fallback.py": ["{_text(job, reason, detail)}; {cause}{hint}"],
    "termite/engine/master/job_reports.py": [
        "killed the command, because it exceeded the time limit of its rule",
        "{line}",
    ],
    "termite/engine/master/run_job.py": [
        "{master.rule_file.remark_on(job.warning)}",
        "{master.tree.discarded.take()}",
        "{warning}",
    ],
    # This is the shell of termite-ctl, and no build.
    "termite/engine/master/worker_shell/run_shell.py": [
        "changes in the tree that stayed on the worker: {len(ran.changes)} (-keep brings them home)",
        "on {lease.worker}, in {printable(command.cwd)}, with the environment {whose}; {kept}",
        "{line}",
    ],
    # Its test is below.
    "termite/engine/master/user_notices/silence_notices.py": ["{self._text(change, waiting)}"],
    "native/front_end/main.c": ["cannot start %s: %s\\n"],
    "native/launcher/command_line.c": ["%s%s (see termite --help)\\n", "termite-shell %s\\n"],
    "native/launcher/conversation.c": [
        "%s while it wrote the results of: %s\\n",
        "%s while the command was running: %s\\n",
        "cannot write the output of %s: %s\\n",
    ],
    "native/launcher/local_run.c": ["%s%s; TERMITE_LOCAL=never forbids running the command on this machine: %s\\n"],
    "native/launcher/master_socket.c": ["the master at %s has not accepted for %d s; TERMITE=off builds without it\\n"],
    "native/launcher/recovery/redo.c": ["%s: %s\\n"],
    "native/launcher/silence.c": [
        "the master answers again: %s\\n",
        "the master%s has not answered for %d s; %s%sTERMITE=off builds without it: %s\\n",
    ],
    "native/launcher/streams/second_run.c": [
        "cannot run again: %s: %s\\n",
        "cannot write the output of %s: %s\\n",
        "the command ran again and printed something else, so that its output would be of two runs: ",
    ],
    "native/launcher/surroundings/mark.c": ["%s is built at %s, not at its own path; use --at %s\\n"],
    "native/launcher/surroundings/settings.c": [
        "%s is ignored: write %s%s%.*s%s%s%.*s%s%s%.*s%s\\n",
        "%s%s is ignored: write %s%s\\n",
    ],
    "native/preload/preload.c": [
        "cannot start the launcher, and TERMITE_LOCAL=never forbids running the command on this machine\\n"
    ],
}


def lines_of_ends() -> Iterator[str]:
    """Yield the lines of builds in which everything has happened that a summary tells of."""
    for is_many in (False, True):
        for count in (1, 2):
            places = [{"place": f"/{is_many}", "count": count, "is_many": is_many, "rule": "X" * (count - 1)}]
            counters = Counters(
                remote=count,
                local=30 * count,
                moved=count,
                repeated=count,
                dropped_writes=count,
                sockets_left=count,
                conflicts=count,
            )
            counters.retries[Reason.INPUT_CHANGED] += count
            for reason in Reason:
                counters.fallbacks[reason] += count
            for event in PathEvent:
                for _ in range(count):
                    counters.count_paths(event, ["/x"])
            counters.count_unseen("/home/me/bin/tool")
            counters.count_missing_edge("a.o failed, then passed when b.h was there: a dependency is missing")
            end = {**build_summary(counters), "outside": places, "private": places, "cached": count}
            yield from end_lines({**end, "misses": {"content": count}}, is_verbose=True)
    yield from end_lines(build_summary(Counters()), is_verbose=True)


def test_every_line_of_a_summary_begins_with_a_number_of_jobs_or_commands() -> None:
    lines = list(lines_of_ends())
    assert len(set(lines)) >= 20, "the walk has met all kinds"
    assert [line for line in lines if not FORM.match(line)] == []


def test_every_line_before_a_build_begins_with_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("termite.cli.build_commands.summary_lines.web_address_file", lambda tree: Path(__file__))
    monkeypatch.setattr(
        "termite.cli.written_files.web_address.read_address", lambda file: "http://127.0.0.1:1/?token=x"
    )
    foreign = {"worker": "w0", "theirs": "aarch64", "ours": "x86_64"}
    lines = [*start_lines({"foreign": [foreign]}), *pages_lines(TOP)]
    assert len(lines) == 2
    assert all(line.startswith("started ") for line in lines), lines


def literals() -> Iterator[tuple[str, str]]:
    """Yield the texts in the sources that are printed during a build, each with its file."""
    for folder, kind in (("termite/engine", "*.py"), ("native/launcher", "*.c"), ("native", "*/*.c")):
        for file in (TOP / folder).rglob(kind):
            for text in LITERAL.findall(file.read_text()):
                yield str(file.relative_to(TOP)), text


def test_every_notice_during_a_build_has_that_form_or_is_an_error() -> None:
    found: dict[str, set[str]] = {}
    for file, text in literals():
        if not FORM_OF_LITERAL.match(text):
            found.setdefault(file, set()).add(text)
    assert {file: sorted(texts) for file, texts in found.items()} == ERRORS
