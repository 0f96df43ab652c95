"""TERMITE_LOCAL: whether the user forbids that commands fall back to the master's machine.

The variable never affects a command that a rule makes local. The launcher reads it too, if it has
no master (native/launcher/local_run.c).
"""

from collections.abc import Mapping

LOCAL = "TERMITE_LOCAL"
NEVER = "never"


def is_local_forbidden(env: Mapping[str, str]) -> bool:
    """Return True if a command must fail rather than fall back to the master's machine."""
    return env.get(LOCAL) == NEVER


def local_policy_warning(env: Mapping[str, str]) -> str:
    """Return a warning for the user if TERMITE_LOCAL has an unknown value, else ""."""
    word = env.get(LOCAL, "")
    return "" if word in ("", NEVER) else f'{LOCAL}={word} is ignored: the only accepted value is "{NEVER}"'
