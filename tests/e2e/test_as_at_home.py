"""A distributed build prints and leaves what a plain one does, but for lines of known forms.

Each script runs twice in one directory: with make, and with termite-make. A line of stderr does not
count if it begins with `termite: started`, or with `termite: ` and a number of jobs or commands.
"""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from termite.engine.errors import Reason
from tests.e2e.cluster import Tree
from tests.e2e.places import Outcome
from tests.e2e.snapshot import Entry, snapshot

OWN_LINES = re.compile(rb"^termite: (?:started|\d+ commands?|\d+ jobs?) .*\n", re.MULTILINE)
OWN_NAMES = (b"make", b"termite-make")  # with which make begins its own lines


@dataclass(frozen=True)
class Case:
    """A makefile, and the shell script that calls $MAKE, or $RUN before a command without make.

    `reasons` are those for which commands fell back, and `local` is how many others ran here; None:
    chance decides.
    """

    makefile: str
    script: str = "$MAKE"
    reasons: Mapping[Reason, int] = field(default_factory=dict)
    local: int | None = 0


RENAME = 'python3 -c \'import os; os.rename("a", "b")\''
CASES = {
    "appends at once": Case(
        "all: $(addprefix t,1 2 3 4 5 6 7 8)\n\t@sort log -o log; wc -l <log\nt%:\n\t@echo $@ >>log; touch $@\n",
        "$MAKE -j8",
        local=None,
    ),
    "a directory of an earlier recipe gets another name": Case(
        f"all: a\n\t@{RENAME}; ls -R\na:\n\t@mkdir -p a/d; echo 1 >a/d/f\n",
        reasons={Reason.CROSSED_DEVICES: 1},
    ),
    "fails with such words at home, too": Case(
        "all:\n\t@echo cross-device link >&2; exit 3\n", reasons={Reason.CROSSED_DEVICES: 1}
    ),
    "asks for limits and privileges": Case(
        "all:\n\t@ulimit -a; ulimit -Hn\n\t@grep -E 'NoNewPriv|Seccomp:' /proc/self/status\n"
        "\t@cat /proc/sys/kernel/pid_max /proc/self/limits; ls /dev\n",
        local=3,
    ),
    "has limits": Case(
        "all:\n\t@ulimit -n; ulimit -s; ulimit -v; ulimit -f; ulimit -t\n",
        "ulimit -n 300; ulimit -v 9000000; ulimit -f 999999; ulimit -t 600; $MAKE",
    ),
    "names a descriptor of the shell": Case(
        "all:\n\t@echo seven >&7\n", "exec 7>seven; $MAKE", {Reason.DESCRIPTOR_INHERITED: 1}
    ),
    "makes a setuid file": Case(
        "all:\n\t@echo x >f; chmod 4755 f; stat -c %a f\n", reasons={Reason.LATER_CODE: 1}
    ),
    "without a build tool": Case(
        "", "echo x >g; $RUN chmod 4755 g; exec 8<g; $RUN sh -c 'cat <&8'",
        {Reason.LATER_CODE: 1, Reason.DESCRIPTOR_INHERITED: 1},
    ),
}  # fmt: skip


def run(tree: Tree, case: Case, make: str, launcher: str) -> tuple[int, bytes, bytes, dict[bytes, Entry]]:
    """Return what the script prints and leaves in a directory of its own, then remove that."""
    tree.mkdir("w")
    tree.write("w/Makefile", case.makefile)
    done: Outcome = tree.plain("sh", "-c", case.script, within="w", env={"MAKE": make, "RUN": launcher})
    left = snapshot(tree.path / "w")
    shutil.rmtree(tree.path / "w")
    stderr = OWN_LINES.sub(b"", done.stderr).replace(OWN_NAMES[1], OWN_NAMES[0])
    return done.code, done.stdout, stderr, left


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_build_prints_and_leaves_what_a_plain_one_does(tree: Tree, case: Case) -> None:
    where = tree.where
    plain = run(tree, case, "make", "")
    before = tree.status()
    assert run(tree, case, where.word("termite-make"), where.word("termite")) == plain
    after = tree.status()
    fell_back = {
        reason: after["fallbacks"].get(reason, 0) - before["fallbacks"].get(reason, 0) for reason in case.reasons
    }
    assert fell_back == dict(case.reasons)
    if case.local is not None:
        assert after["jobs"]["local"] - before["jobs"]["local"] == case.local + sum(fell_back.values())
