"""TERMITE and TERMITE_LOCAL: the variables by which the user says where commands may run.

TERMITE=off switches termite off. TERMITE_LOCAL=never forbids that commands fall back to the
master's machine; it never affects a command that a rule makes local. The launcher and the preload
library read them too (native/launcher/local_run.c, native/preload/preload.c).
"""

from collections.abc import Mapping

SWITCH = "TERMITE"
OFF = "off"
LOCAL = "TERMITE_LOCAL"
NEVER = "never"
_ACCEPTED = {SWITCH: OFF, LOCAL: NEVER}


def is_switched_off(env: Mapping[str, str]) -> bool:
    """Return True if termite must do nothing, so that the build is a plain one."""
    return env.get(SWITCH) == OFF


def is_local_forbidden(env: Mapping[str, str]) -> bool:
    """Return True if a command must fail rather than fall back to the master's machine."""
    return env.get(LOCAL) == NEVER


def policy_warning(env: Mapping[str, str]) -> str:
    """Return a warning for the user if one of the variables has an unknown value, else ""."""
    return "; ".join(
        f'{name}={env[name]} is ignored: the only accepted value is "{accepted}"'
        for name, accepted in _ACCEPTED.items()
        if env.get(name, "") not in ("", accepted)
    )
