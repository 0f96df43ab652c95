"""Run the checks of `termite-ctl doctor`, and print what they find."""

import json
import logging
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from termite.cli.daemons import default_tmpdir
from termite.cli.doctor.farm_checks import Farm, check_farm
from termite.cli.doctor.finding import Finding, Level, exit_code_of, findings_report, shown_finding, verdict_line
from termite.cli.doctor.machine_checks import MACHINE, check_this_machine
from termite.cli.doctor.own_files import check_own_files, check_secret
from termite.cli.doctor.own_worker import LastLines, try_this_machine
from termite.cli.doctor.room_checks import check_room
from termite.cli.doctor.trial_jobs import trial_tree
from termite.cli.doctor.trial_place import trial_place
from termite.engine.errors import UserError
from termite.engine.fleet.coordinator import COORDINATOR_PORT
from termite.engine.host.descriptors import raise_file_limit
from termite.engine.wire.addresses import split_address


def run_doctor(flags: Namespace) -> int:
    """Run all checks, print the findings, and return the exit code: 0, 104 or 105."""
    is_farm = bool(flags.coordinator or flags.secret)
    host, port = split_address(flags.coordinator or f"localhost:{COORDINATOR_PORT}", COORDINATOR_PORT)
    examination = Examination(is_json=flags.json)
    examination.note_all("this machine", check_this_machine())
    examination.note_all("limits and disks", check_room())
    examination.note_all("your files", check_own_files())
    farm = None
    if is_farm:
        secret, finding = check_secret(flags.secret or Path("secret.txt"))
        examination.note(finding)
        farm = Farm(host or "localhost", port, secret) if secret else None
    raise_file_limit()
    is_interrupted = False
    try:
        trio.run(_run_jobs, examination, farm)
    except* KeyboardInterrupt:  # raised again below: here it would become a part of a group
        is_interrupted = True
    if is_interrupted:
        examination.progress("")
        raise KeyboardInterrupt
    examination.end(is_farm=is_farm)
    return exit_code_of(examination.findings)


class Examination:
    """The findings so far, which are shown as they come, below a line of progress on a terminal."""

    def __init__(self, *, is_json: bool) -> None:
        self.findings: list[Finding] = []
        self._is_json = is_json
        self._area = ""
        self._shows_progress = sys.stderr.isatty()

    def note(self, finding: Finding) -> None:
        """Add a finding, and show it."""
        self.findings.append(finding)
        if self._is_json:
            return
        self.progress("")
        if finding.area != self._area:
            self._area = finding.area
            print(f"{finding.area}:")
        print(f"  {shown_finding(finding)}".replace("\n", "\n  "), flush=True)

    def note_all(self, what: str, findings: Iterable[Finding]) -> None:
        """Add findings, of checks that run meanwhile."""
        self.progress(f"checking {what} ...")
        for finding in findings:
            self.note(finding)
            self.progress(f"checking {what} ...")

    def progress(self, line: str) -> None:
        """Show on a terminal what is being checked; "" clears the line."""
        if self._shows_progress:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    def end(self, *, is_farm: bool) -> None:
        """Show the verdict on everything, or all findings as JSON."""
        self.progress("")
        if self._is_json:
            print(json.dumps(findings_report(self.findings), indent=2))
            return
        print(verdict_line(self.findings))
        if not is_farm:
            print("no farm was checked: termite-ctl doctor -coordinator HOST -secret FILE does it")

    @property
    def is_machine_fit(self) -> bool:
        """True if no check of this machine has failed, so that a job may be tried here."""
        return not any(finding.area == MACHINE and finding.level is Level.FAILURE for finding in self.findings)


async def _run_jobs(examination: Examination, farm: Farm | None) -> None:
    """Run a job on this machine, and on each worker of the farm."""
    with _quiet_log() as log:
        try:
            with trial_place() as directory, trial_tree(directory / "tree") as trial:
                if examination.is_machine_fit:
                    examination.progress("running a job on this machine ...")
                    for finding in await try_this_machine(directory, trial, log):
                        examination.note(finding)
                if farm is not None:
                    examination.progress(f"trying {farm.area} and its workers ...")
                    await check_farm(farm, trial, examination.note)
        except (UserError, OSError) as error:
            text = error.message if isinstance(error, UserError) else f"no job can be tried: {error}"
            examination.note(Finding(MACHINE, "job", Level.FAILURE, text, f"make room in {default_tmpdir()}"))


@contextmanager
def _quiet_log() -> Iterator[LastLines]:
    """Keep the log of our own worker, instead of printing it."""
    log, root = LastLines(), logging.getLogger("termite")
    root.addHandler(log)
    before, root.propagate = root.propagate, False
    try:
        yield log
    finally:
        root.propagate = before
        root.removeHandler(log)
