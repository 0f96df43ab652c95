"""Sums of what leases use come from the lines of their mirrors, which are not trusted."""

import pytest

from termite.engine.errors import Reason
from termite.engine.wire.protocol.control_lines import MirrorNotice
from termite.engine.worker.reports.lease_accounts import LeaseAccount, total_of, uses_of


def line(running: int, jobs: int, cpu_s: float = 0.0, job_s: float = 0.0, busy_s: float = 0.0) -> MirrorNotice:
    return MirrorNotice(running=running, jobs=jobs, cpu_s=cpu_s, job_s=job_s, busy_s=busy_s)


def test_the_time_of_running_jobs_goes_on_between_two_lines() -> None:
    account = LeaseAccount("anna@desk", since_s=100.0)
    account.note(line(2, 2), now_s=110.0)
    report = account.report(4, 115.0, is_private=True)
    assert (report.user, report.since_s, report.slots, report.running, report.jobs) == ("anna@desk", 15.0, 4, 2, 2)
    assert (report.job_s, report.busy_s) == (10.0, 5.0)
    account.note(line(0, 3, cpu_s=7.0, job_s=12.0, busy_s=6.0), now_s=116.0)
    report = account.report(4, 200.0, is_private=False)
    assert (report.user, report.running, report.jobs, report.cpu_s, report.job_s, report.busy_s) == (
        "", 0, 3, 7.0, 12.0, 6.0,
    )  # fmt: skip


def test_a_line_about_something_else_changes_nothing() -> None:
    account = LeaseAccount("a@b", 0.0)
    account.note(line(1, 5, cpu_s=2.0), 1.0)
    account.note(MirrorNotice(unfit=Reason.UNFIT_WORKER), 2.0)
    assert account.report(1, 2.0, is_private=False).running == 1


def test_a_mirror_that_lies_makes_no_report_that_the_wire_refuses() -> None:
    account = LeaseAccount("a@b", 0.0)
    account.note(line(10**12, 2**63 - 1, cpu_s=1e9, job_s=1e9, busy_s=1e9), 1.0)
    total = total_of(account.report(0, 1e12, is_private=False), [account.report(9, 1e12, is_private=False)] * 64)
    assert (total.running, total.jobs) == (1_000_000, 2**53)
    assert total.cpu_s == total.job_s == total.busy_s == total.since_s == 1e9
    account.note(line(0, 0), 2.0)
    assert account.report(1, 2.0, is_private=False).cpu_s == 1e9, "a sum never becomes smaller"


def test_ended_leases_stay_in_the_sum() -> None:
    ended, first = LeaseAccount("", 0.0), LeaseAccount("a@b", 0.0)
    first.note(line(0, 3, 1.0, 4.0, 2.0), 5.0)
    ended.add(first)
    second = LeaseAccount("a@b", 6.0)
    second.note(line(0, 1, 0.5, 1.0, 1.0), 8.0)
    total = total_of(ended.report(0, 10.0, is_private=True), [second.report(4, 10.0, is_private=True)])
    assert (total.since_s, total.jobs, total.cpu_s, total.job_s, total.busy_s) == (10.0, 4, 1.5, 5.0, 3.0)
    assert total.user == ""


@pytest.mark.parametrize("running", [0, 2])
def test_the_leases_of_one_user_are_one_use(running: int) -> None:
    one, two, other = LeaseAccount("a@b", 0.0), LeaseAccount("a@b", 0.0), LeaseAccount("z@b", 0.0)
    one.note(line(running, 2), 1.0)
    uses = uses_of([(two, 3), (other, 1), (one, 4)])
    assert [(use.user, use.slots, use.running) for use in uses] == [("a@b", 7, running), ("z@b", 1, 0)]
