"""The plugin for commands that only the user's own machine can carry out.

A job has no privilege, and its file system consists of several. Commands that ask inside, without
the name of such a program in their text, get an error of the kernel.
"""

from termite import Rule, command_regexp, hookimpl

_PRIVILEGED = ("sudo", "doas", "pkexec", "mount", "umount", "losetup", "chroot")
_SERVED = ("docker", "podman", "buildah", "nerdctl", "systemctl", "systemd-run")  # they ask daemons of this machine
# A job has one group only, and overlayfs shows other devices for files than for their directories.
# A quote may end the name.
_USER_GROUPS_DEVICES = command_regexp(
    r"su|groups|id(?=['\"]?\s*(?:$|[;&|<>)\n]|-\w*G|--groups))|du(?=[^;&|\n]*?\s-(?:\w*x|-one-file-system))"
)
# These ask for processes, mounts, disks or modules, and a job has its own ones or none.
_LISTERS = (
    *("pgrep", "pkill", "killall", "pidof", "fuser", "lsof", "prlimit", "ipcs"),
    *("findmnt", "mountpoint", "lsblk", "blkid", "lsmod"),
)
# What a command asks about itself has another answer in a job: the limits that protect the worker,
# the privileges, mounts and namespaces, and what the kernel keeps for each namespace of processes.
# `ulimit -n`, `-s` and other limits of one process are those of the submitter. Each repetition is
# bounded, so that a search takes linear time.
_OF_USER = r"[a-zA-Z]{0,9}[aeilqru]|[a-zA-Z]{0,9}H[a-zA-Z]{0,9}n|[a-zA-Z]{0,9}n[a-zA-Z]{0,9}H|H\s{1,9}-n"
_PROCESS = r"/proc/[^/\s'\"]{1,32}/"
_OWN_FILES = r"limits|mounts|mountinfo|mountstats|[ug]id_map|setgroups|cgroup|loginuid|sessionid|oom_\w{1,9}"
_OF_ITSELF = "|".join(
    (
        rf"\bulimit(?:\s{{1,9}}-[a-zA-Z]{{1,9}}){{0,4}}?\s{{1,9}}-(?:{_OF_USER})(?!\w)",
        r"\bRLIMIT_(?:NPROC|SIGPENDING|MSGQUEUE|MEMLOCK|NICE|RTPRIO|RTTIME)\b",
        rf"{_PROCESS}(?:{_OWN_FILES})\b",
        r"/proc/(?:mounts|sys/user|sys/kernel/(?:pid_max|ns_last_pid|shm\w{3}|msg\w{3}|sem))\b",
        rf"\b(?:NoNewPriv|Seccomp|Cap[IPEBA][a-z]{2})[^;&\n]{{0,200}}{_PROCESS}status\b",
        rf"\b(?:cat|cp|head|tail|less|more)\s[^;&|\n]{{0,200}}{_PROCESS}status\b",
        r"\b(?:ls|find|tree) (?:-[^;&|\n]{0,200}\s)?['\"]?/dev/?(?=['\"]?(?:$|[\s;&|<>)]))",
    )
)
_ITS_WORDS = ("ulimit", "RLIMIT_", "/proc/", "ls ", "find ", "tree ")
# A job sees no extended attributes, access control lists and flags of files.
_ATTRIBUTES = ("setfacl", "getfacl", "chacl", "setfattr", "getfattr", "chattr", "lsattr")
_SOURCE = "machine plugin"


@hookimpl
def termite_rules() -> list[Rule]:
    """Keep commands local that need privileges, ask a daemon, or ask what differs in a job."""
    return [
        Rule(command_regexp("|".join(_PRIVILEGED)), local=True, source=_SOURCE, words=_PRIVILEGED),
        Rule(command_regexp("|".join(_SERVED)), local=True, source=_SOURCE, words=_SERVED),
        Rule(command_regexp("|".join(_ATTRIBUTES)), local=True, source=_SOURCE, words=_ATTRIBUTES),
        # One search for all: short names stand in many texts, and a search takes 15 us.
        Rule(_USER_GROUPS_DEVICES, local=True, source=_SOURCE, words=("su", "groups", "id", "du")),
        Rule(command_regexp("|".join(_LISTERS)), local=True, source=_SOURCE, words=_LISTERS),
        Rule(_OF_ITSELF, local=True, source=_SOURCE, words=_ITS_WORDS),
    ]
