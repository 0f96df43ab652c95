"""Show the results of the doctor's checks, as text and as JSON."""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from termite.engine.errors import ExitCode, UserError
from termite.engine.wire.protocol.foreign_text import LONGEST_LINE, printable

_ABOUT_WIDTH = 14


class Level(enum.StrEnum):
    """The weight of a finding. With a failure, jobs cannot run; with a warning, some may."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    `area` is the machine or the file that was checked. `about` is a word that scripts can rely on.
    `mend` is the command that mends the fault, or "".
    """

    area: str
    about: str
    level: Level
    text: str
    mend: str = ""


def failure_of(area: str, about: str, error: UserError, level: Level = Level.FAILURE) -> Finding:
    """Return the finding that an error for the user means."""
    return Finding(area, about, level, error.message, error.hint)


def shown_finding(finding: Finding) -> str:
    """Return the lines of a finding."""
    line = f"{finding.level:<9}{printable(finding.about):<{_ABOUT_WIDTH}}{printable(finding.text, LONGEST_LINE)}"
    mend = f"\n{'':<9}{'mend it by':<{_ABOUT_WIDTH}}{printable(finding.mend, LONGEST_LINE)}"
    return line + mend if finding.mend and finding.level is not Level.OK else line


def verdict_line(findings: Sequence[Finding]) -> str:
    """Return the last line, which says how many findings are bad."""
    failures, warnings = count_of(findings, Level.FAILURE), count_of(findings, Level.WARNING)
    if not failures and not warnings:
        return f"all is well: {len(findings)} checks"
    counts = ((failures, "failure"), (warnings, "warning"))
    return ", ".join(f"{count} {word}{'s' if count > 1 else ''}" for count, word in counts if count)


def exit_code_of(findings: Iterable[Finding]) -> int:
    """Return the exit code of the doctor: 0 if all is well."""
    found = list(findings)
    if count_of(found, Level.FAILURE):
        return ExitCode.UNFIT
    return ExitCode.DOUBTFUL if count_of(found, Level.WARNING) else 0


def count_of(findings: Iterable[Finding], level: Level) -> int:
    """Return how many findings have this level."""
    return sum(finding.level is level for finding in findings)


def findings_report(findings: Sequence[Finding]) -> dict[str, object]:
    """Return the value that `doctor --json` prints. Its keys are stable."""
    return {
        "findings": [asdict(finding) for finding in findings],
        "failures": count_of(findings, Level.FAILURE),
        "warnings": count_of(findings, Level.WARNING),
    }
