"""Test which private names in temporary directories jobs must not take for missing."""

import os
import stat

from termite.engine.paths import MOST_FRESH
from termite.engine.tree.tools.fresh_names import CLOCK_NS, FreshNames

NOW_NS = 10**18


def entry(made_ns: int, uid: int | None = None) -> os.stat_result:
    owner = os.geteuid() if uid is None else uid
    times = {"st_atime_ns": made_ns, "st_mtime_ns": made_ns, "st_ctime_ns": made_ns}
    return os.stat_result((stat.S_IFREG | 0o600, 1, 1, 1, owner, 0, 0, 0, 0, 0), times)


def test_names_of_this_user_and_of_this_build_are_fresh_until_they_are_gone() -> None:
    fresh = FreshNames(NOW_NS)
    later = NOW_NS + 1
    old, others = entry(NOW_NS - 2 * CLOCK_NS), entry(later, os.geteuid() + 1)
    hidden = {b"a": entry(later), b"old": old, b"others": others, b"ssh-agent": entry(later)}
    fresh.note(b"tmp", [*hidden, b"shown"], hidden)
    fresh.note(b"var/tmp", [b"b"], {b"b": entry(later)})
    assert list(fresh.paths) == [b"tmp/a", b"var/tmp/b"]
    fresh.note(b"tmp", [b"a", b"old"], {})
    assert list(fresh.paths) == [b"var/tmp/b"]


def test_a_build_forgets_the_names_of_the_one_before() -> None:
    fresh = FreshNames(NOW_NS)
    fresh.note(b"tmp", [b"a", b"b"], {b"a": entry(NOW_NS), b"b": entry(NOW_NS + 5 * CLOCK_NS)})
    fresh.begin_build(NOW_NS + 5 * CLOCK_NS)
    assert fresh.paths == (b"tmp/b",)


def test_the_newest_names_are_kept_if_there_are_too_many() -> None:
    fresh = FreshNames(NOW_NS)
    for number in range(MOST_FRESH + 1):
        fresh.note(b"tmp", [b"%d" % number], {b"%d" % number: entry(NOW_NS)})
    assert len(fresh.paths) == MOST_FRESH
    assert fresh.paths[-1] == b"tmp/%d" % MOST_FRESH
