"""The plugin for commands that only the user's own machine can carry out.

A job has no privilege, and its file system consists of several. Commands that ask inside, without
the name of such a program in their text, get an error of the kernel.
"""

from termite import Rule, command_regexp, hookimpl

_PRIVILEGED = ("sudo", "doas", "pkexec", "mount", "umount", "losetup", "chroot")
_SERVED = ("docker", "podman", "buildah", "nerdctl", "systemctl", "systemd-run")  # they ask daemons of this machine
# A job has one group only.
_GROUPS = command_regexp("groups") + "|" + command_regexp("id") + r"(?=\s*(?:$|[;&|)\n]|-\w*G|--groups))"
_SU = command_regexp("su")
# Overlayfs shows other devices for files than for their directories.
_DU = command_regexp("du") + r"(?=[^;&|\n]*?\s-(?:\w*x|-one-file-system))"
_SOURCE = "machine plugin"


@hookimpl
def termite_rules() -> list[Rule]:
    """Keep programs local that change the user, mount, ask a daemon, or see groups or devices."""
    return [
        Rule(command_regexp("|".join(_PRIVILEGED)), local=True, source=_SOURCE, words=_PRIVILEGED),
        Rule(command_regexp("|".join(_SERVED)), local=True, source=_SOURCE, words=_SERVED),
        Rule(_GROUPS, local=True, source=_SOURCE, words=("groups", "id -", "id)", "id |", "id;")),
        Rule(_SU, local=True, source=_SOURCE, words=("su ",)),
        Rule(_DU, local=True, source=_SOURCE, words=("du ",)),
    ]
