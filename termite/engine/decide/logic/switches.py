"""The variables of termite, and what each may say. A test compares them with docs/use/reference.md.

TERMITE=off switches termite off. TERMITE_LOCAL=never forbids that commands fall back to the
master's machine; it never affects a command that a rule makes local. The launcher and the preload
library read them too (native/launcher/local_run.c, native/preload/preload.c).
"""

from collections.abc import Mapping

from termite.engine.errors import UserError
from termite.engine.nearest_name import nearest_name

SWITCH = "TERMITE"
OFF = "off"
LOCAL = "TERMITE_LOCAL"
NEVER = "never"
LOG_FORMAT = "TERMITE_LOG_FORMAT"
JSON = "json"
_PREFIX = "TERMITE_"

# Each variable with the values that it may have; without any, it may have all. An empty value is
# as good as none.
VARIABLES: Mapping[str, tuple[str, ...]] = {
    SWITCH: (OFF,),
    LOCAL: (NEVER,),
    "TERMITE_BUILD": (),
    "TERMITE_BUILD_SOCKET": (),
    "TERMITE_ENV_EXCLUDE": (),
    "TERMITE_LAUNCHER": (),
    "TERMITE_JOB_OUTPUT": ("kept", "dropped"),
    LOG_FORMAT: ("text", JSON),
    "TERMITE_NATIVE": (),
    "TERMITE_PRELOAD": (),
    "TERMITE_PRELOAD_TOOLS": (),
    "TERMITE_ROOT": (),
    "TERMITE_SHELL": (),
    "TERMITE_SHORT": ("auto",),  # or a number
    "TERMITE_SOCKET": (),
    "TERMITE_SUMMARY": (),
    "TERMITE_TMP": ("shared", "private"),
    "TERMITE_TRACE": ("off", "exact"),
    "TERMITE_CACHE": ("on", "read", "off"),
    "TERMITE_SHARED_CACHE": (),
    "TERMITE_SHARED_CACHE_MODE": ("read", "write"),
    "TERMITE_SHARED_CACHE_SETTINGS": (),
    "TERMITE_VERBOSE": (),
}
# Further values of a variable, in words.
_NUMBERS = {"TERMITE_SHORT": "a number of milliseconds"}


def is_switched_off(env: Mapping[str, str]) -> bool:
    """Return True if termite must do nothing, so that the build is a plain one."""
    return env.get(SWITCH) == OFF


def is_local_forbidden(env: Mapping[str, str]) -> bool:
    """Return True if a command must fail rather than fall back to the master's machine."""
    return env.get(LOCAL) == NEVER


def check_variables(env: Mapping[str, str]) -> None:
    """Raise UserError, in one line that says what to write, if a variable of termite is wrong.

    A variable is wrong if its value is, or if its name is nearly that of another one.
    """
    for setting, correction in _wrong_settings(env):
        raise UserError(f"{setting} has no meaning: write {correction}")


def ignored_settings(env: Mapping[str, str]) -> str:
    """Return a warning for the user if variables of termite are wrong, else ""."""
    return "; ".join(f"{setting} is ignored: write {correction}" for setting, correction in _wrong_settings(env))


def _wrong_settings(env: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return each wrong setting, as `NAME=VALUE` or `NAME`, and what to write instead of it."""
    ours = [name for name in env if name.startswith(SWITCH)]
    wrong = [
        (f"{name}={env[name]}", accepted_settings(name, env[name]))
        for name in ours
        if name in VARIABLES and env[name] and not is_accepted(name, env[name])
    ]
    misspelt = [name for name in ours if name not in VARIABLES and name.startswith(_PREFIX)]
    return wrong + [(name, near) for name in misspelt if (near := nearest_variable(name))]


def nearest_variable(name: str) -> str:
    """Return the variable of termite that `name` most likely stands for, or "" if none is near.

    `name` begins with TERMITE_, which does not count: all of them have that.
    """
    known = [name.removeprefix(_PREFIX) for name in VARIABLES if name != SWITCH]
    near = nearest_name(name.removeprefix(_PREFIX), known)
    return _PREFIX + near if near else ""


def is_accepted(name: str, value: str) -> bool:
    """Return True if a variable of VARIABLES may have this value."""
    accepted = VARIABLES[name]
    return not accepted or value in accepted or (name in _NUMBERS and _is_number(value))


def _is_number(text: str) -> bool:
    try:
        return 0 <= float(text) < float("inf")
    except ValueError:
        return False


def accepted_settings(name: str, value: str) -> str:
    """Return in words what a variable may say, or the nearest value if there is one."""
    near = nearest_name(value, VARIABLES[name])
    values = [near] if near else VARIABLES[name]
    settings = [f"{name}={accepted}" for accepted in values]
    if name in _NUMBERS and not near:
        settings.insert(0, _NUMBERS[name])
    return " or ".join(settings)
