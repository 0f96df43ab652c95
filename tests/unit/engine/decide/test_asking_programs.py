"""Test which programs a job must not start on another machine, or on any."""

import stat

import msgspec

from termite.engine.decide.logic.questions import reason_of_program, reason_to_seal, seal_programs
from termite.engine.errors import Reason
from termite.engine.model import Attr, Digest, MachineFacts
from tests.unit.tables import each_row

OURS = MachineFacts("x86_64", "Linux 6.1", "A CPU", b"features", 4, 8)
KERNEL = msgspec.structs.replace(OURS, kernel="Linux 6.2")
CORES = msgspec.structs.replace(OURS, cores=3)
CPU = msgspec.structs.replace(OURS, cpu_features=b"others")
MACHINE, ATTRIBUTES = Reason.OTHER_MACHINE, Reason.ATTRIBUTES_SET


@each_row(
    ("path", "theirs", "reason"),
    [
        (b"usr/bin/uname", OURS, None),
        (b"usr/bin/uname", KERNEL, MACHINE),
        (b"bin/uname", KERNEL, MACHINE),
        (b"usr/bin/arch", KERNEL, MACHINE),
        (b"usr/sbin/sysctl", KERNEL, MACHINE),
        (b"usr/bin/uname", CORES, None),
        (b"usr/bin/nproc", CORES, MACHINE),
        (b"usr/bin/nproc", KERNEL, None),
        (b"usr/bin/lscpu", CPU, MACHINE),
        (b"usr/bin/getconf", CPU, MACHINE),
        (b"usr/bin/getconf", OURS, None),
        (b"usr/bin/setfacl", OURS, ATTRIBUTES),
        (b"usr/bin/lsattr", KERNEL, ATTRIBUTES),
        (b"home/u/bin/uname", KERNEL, None),
        (b"usr/bin/gcc", KERNEL, None),
        (b"usr/bin/un\xffame", KERNEL, None),
        (b"uname", KERNEL, None),
    ],
)
def test_a_program_is_sealed_if_it_would_answer_otherwise(
    path: bytes, theirs: MachineFacts, reason: Reason | None
) -> None:
    assert reason_to_seal(path, OURS, theirs) is reason
    if reason is not None:
        assert reason_of_program("/" + path.decode()) is reason


def test_a_sealed_program_is_a_file_without_a_digest_and_all_others_stay() -> None:
    program = Attr(stat.S_IFREG | 0o755, 100, 7, Digest(b"d" * 32, 100))
    link = Attr(stat.S_IFLNK | 0o777, 7, 8, target=b"busybox")
    children = {b"uname": program, b"arch": link, b"gcc": program, b"nproc": program}
    elsewhere = dict(children)
    seal_programs(b"usr/bin", children, OURS, KERNEL)
    assert children == {
        b"uname": Attr(stat.S_IFREG | 0o755, 100, 7),
        b"arch": Attr(stat.S_IFREG | 0o755, 7, 8),
        b"gcc": program,
        b"nproc": program,
    }
    seal_programs(b"home/u/bin", elsewhere, OURS, KERNEL)
    seal_programs(b"usr/bin", elsewhere, OURS, OURS)
    assert elsewhere[b"uname"] is program
