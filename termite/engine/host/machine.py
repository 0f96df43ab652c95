"""Read the facts of this machine that commands may ask about.

The facts are those of this process: setarch(8) and taskset(1) change them for it and its children.
Reading them takes milliseconds, as the kernel measures each processor's clock for /proc/cpuinfo.
Therefore a daemon reads them once.
"""

import math
import os
import pwd
from hashlib import blake2b
from pathlib import Path

from termite.engine.host.own_cgroup import read_cpu_quota
from termite.engine.model import MachineFacts

CPUINFO = Path("/proc/cpuinfo")
# Lines of /proc/cpuinfo that differ between the processors of one machine, or from hour to hour.
VOLATILE = frozenset(
    ("processor", "cpu MHz", "clock", "bogomips", "BogoMIPS", "core id", "apicid", "initial apicid", "physical id")
)
MODEL = ("model name", "cpu model", "cpu", "CPU part")  # of x86, MIPS, POWER and ARM
MOST_CORES = 1 << 20  # without a quota
LONGEST_NAME = 200  # characters of a text for people


def read_facts() -> MachineFacts:
    """Return the facts of this machine as this process sees it."""
    host = os.uname()
    try:
        cpuinfo = CPUINFO.read_text(errors="replace")
    except OSError:  # no /proc: the processor is unknown, and so differs from any other
        cpuinfo = ""
    cpu, features = parse_cpuinfo(cpuinfo)
    return MachineFacts(
        architecture=host.machine,
        kernel=_shown(f"{host.sysname} {host.release} {host.version}"),
        cpu=_shown(cpu),
        cpu_features=features,
        cores=len(os.sched_getaffinity(0)),
        cores_online=os.sysconf("SC_NPROCESSORS_ONLN"),
    )


def usable_cores() -> int:
    """Return how many cores this process may keep busy, at least 1.

    taskset(1) gives it certain cores, and a container or a service manager a share of their time.
    """
    return max(min(len(os.sched_getaffinity(0)), math.ceil(min(read_cpu_quota(), MOST_CORES))), 1)


def user_name() -> str:
    """Return the name of this process's user, or his number if he has no name."""
    try:
        return _shown(pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:
        return str(os.getuid())


def _shown(text: str) -> str:
    return "".join(filter(str.isprintable, text))[:LONGEST_NAME]


def parse_cpuinfo(text: str) -> tuple[str, bytes]:
    """Return the name of the first processor in a text of /proc/cpuinfo, and a digest of the rest.

    Both are empty if there is none.
    """
    lines: dict[str, str] = {}
    for line in text.partition("\n\n")[0].splitlines():
        name, _, content = line.partition(":")
        lines[name.strip()] = content.strip()
    features = {name: " ".join(sorted(content.split())) for name, content in lines.items() if name not in VOLATILE}
    if not features:
        return "", b""
    digest = blake2b("\n".join(f"{name}:{features[name]}" for name in sorted(features)).encode(), digest_size=16)
    return next((lines[name] for name in MODEL if name in lines), ""), digest.digest()


def read_most_tasks() -> int:
    """Return how many processes and threads this machine can have."""
    return min(int((Path("/proc/sys/kernel") / name).read_text()) for name in ("threads-max", "pid_max"))
