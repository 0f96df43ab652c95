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
_SOURCE = "machine plugin"


@hookimpl
def termite_rules() -> list[Rule]:
    """Keep programs local that change the user, mount, ask a daemon, or see groups or devices."""
    return [
        Rule(command_regexp("|".join(_PRIVILEGED)), local=True, source=_SOURCE, words=_PRIVILEGED),
        Rule(command_regexp("|".join(_SERVED)), local=True, source=_SOURCE, words=_SERVED),
        # One search for all: short names stand in many texts, and a search takes 15 us.
        Rule(_USER_GROUPS_DEVICES, local=True, source=_SOURCE, words=("su", "groups", "id", "du")),
    ]
