"""TERMITE_LOCAL: whether the user forbids to run here what no rule has placed here.

The launcher reads it too, where it has no master (native/launcher/local_run.c).
"""

from collections.abc import Mapping

LOCAL = "TERMITE_LOCAL"
NEVER = "never"


def is_local_forbidden(env: Mapping[str, str]) -> bool:
    """Rather an error than a command here that belongs on a worker."""
    return env.get(LOCAL) == NEVER


def odd_local(env: Mapping[str, str]) -> str:
    """What to say of a word that forbids nothing, and was perhaps meant to; empty: nothing."""
    word = env.get(LOCAL, "")
    return f"{LOCAL}={word} says nothing: {NEVER} is the one word that it may be" if word not in ("", NEVER) else ""
