"""A job looks at every file of /proc that is of no process: what it learns stands in the document.

Nothing is mounted over /proc in a sandbox (docs/use/security.md says why), so the kernel alone
decides.
"""

import json
import os
import re
from pathlib import Path

import pytest

from tests.e2e.mirrors import FakeMaster, Starter, mirror
from tests.hostile.attackers import NOBODY, WORKERS, place_of, verdict

DOCUMENT = Path(__file__).parents[2] / "docs/use/security.md"
# Files that a job may read, by the words for them in the document. No kernel has all of them.
SHOWN = {
    "boot id": "sys/kernel/random/boot_id",
    "load, pressure and uptime": "loadavg uptime pressure/cpu pressure/io pressure/irq pressure/memory",
    "kernel's version, configuration and command line": "version version_signature config.gz cmdline bootconfig",
    "memory,": "meminfo vmstat zoneinfo buddyinfo pagetypeinfo swaps allocinfo",
    "processors, interrupts": "cpuinfo stat interrupts softirqs schedstat sched_debug",
    "disks and partitions": "diskstats partitions mdstat",
    "drivers, kinds of file systems and devices": "devices misc filesystems modules dma ioports iomem fb crypto cgroups"
    " consoles execdomains locks kallsyms latency_stats lockdep lockdep_chains lockdep_stats lock_stat"
    " key-users dynamic_debug/control sysvipc/msg sysvipc/sem sysvipc/shm mtrr",
    "names of keys": "keys",
}
# A worker's jobs may not open these.
REFUSED = {"timer_list", "slabinfo", "vmallocinfo", "kmsg", "kcore", "kpagecount", "kpageflags", "1/environ"}
OF_WORKER = ("self/mountinfo", "self/cgroup", "1/cmdline")  # they show paths of the worker
SETTINGS = {"abi", "crypto", "debug", "dev", "fs", "kernel", "net", "sunrpc", "user", "vm"}  # in /proc/sys
OF_DRIVERS = ("sys", "irq", "fs", "bus", "driver", "tty")  # directories whose files only root can write
# What a job may write to: it may ask for notices about pressure, and set up its own namespaces of
# System V, message queues and pids.
OWN = re.compile(
    r"pressure/\w+|sys/fs/mqueue/\w+|sys/kernel/(auto_msgmni|msg\w+|sem\w*|shm\w+|pid_max|ns_last_pid|cad_pid)"
)
LINKS = {"self", "thread-self", "mounts", "net"}  # to what is the job's own
MOST_FILES = 5000

LOOK = """
import json, os, stat
found = {"read": {}, "write": [], "settings": sorted(os.listdir("/proc/sys")), "links": []}
def look(path):
    for flags in (os.O_RDONLY, os.O_WRONLY):
        try:
            fd = os.open(f"/proc/{path}", flags | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if flags == os.O_WRONLY:
                found["write"].append(path)
            elif piece := os.read(fd, 4096):
                found["read"][path] = piece.decode("latin1")
        except OSError:
            pass
        finally:
            os.close(fd)
names = [name for name in sorted(os.listdir("/proc")) if not name.isdecimal()]
paths = []
for name in names:
    mode = os.lstat(f"/proc/{name}").st_mode
    if stat.S_ISLNK(mode):
        found["links"].append(name)
    elif stat.S_ISDIR(mode):
        for place, directories, files in os.walk(f"/proc/{name}"):
            paths += [os.path.relpath(f"{place}/{file}", "/proc") for file in files]
    else:
        paths.append(name)
found["count"] = len(paths)
for path in [*paths[:MOST], "1/environ", "1/cmdline", "self/mountinfo", "self/cgroup"]:
    look(path)
found["processes"] = sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())
print(json.dumps(found))
""".replace("MOST", str(MOST_FILES))


@pytest.mark.parametrize("worker", WORKERS.values(), ids=WORKERS)
async def test_what_proc_shows_a_job_stands_in_the_document(worker: Starter) -> None:
    with place_of(worker) as place:
        master = FakeMaster(place / "project")
        master.uid = master.gid = NOBODY
        async with mirror(master, place, worker):
            found = json.loads(await master.said("/usr/bin/python3", "-c", LOOK))
    assert 200 < found["count"] < MOST_FILES
    known = {name for names in SHOWN.values() for name in names.split()} | set(OF_WORKER)
    read = {
        path for path in found["read"] if path.partition("/")[0] not in ("sys", "irq", "fs", "bus", "driver", "tty")
    }
    odd = [
        *sorted(read - known),
        *(path for path in found["write"] if not OWN.fullmatch(path)),
        *(set(found["read"]) & REFUSED),
        *(set(found["settings"]) - SETTINGS),
        *(set(found["links"]) - LINKS),
        *(found["processes"] if len(found["processes"]) > 3 else ()),
    ]
    addresses = {line.split()[0].strip("0") for line in found["read"].get("kallsyms", "").splitlines()[:-1]}
    assert verdict(bool(odd) or addresses > {""}, "what /proc shows a job") == "HELD", (odd, addresses)
    text = " ".join(DOCUMENT.read_text().split())
    assert [words for words in SHOWN if words not in text] == []
    assert str(place) in found["read"]["self/mountinfo"] or os.sep in found["read"]["1/cmdline"]
    for path in OF_WORKER:
        assert f"`/proc/{path}`" in text
