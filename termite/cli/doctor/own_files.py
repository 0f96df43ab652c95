"""Check the files and the settings of this user: secret, directories, variables and masters."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from termite import __version__
from termite.cli import client
from termite.cli.amounts import size_text
from termite.cli.doctor.finding import Finding, Level, failure_of
from termite.cli.leftovers.footprints import is_elsewhere, living_places
from termite.cli.places import CACHE, STATE, candidates, own_directory, working_directory
from termite.engine.decide.logic.switches import VARIABLES, accepted_settings, is_accepted, nearest_variable
from termite.engine.errors import UserError
from termite.engine.host.ownership import find_stranger
from termite.engine.status.control_requests import AskStatus
from termite.engine.wire.identity import read_secret

OWN = "your files"
LEAST_BYTES = 16 * 1024 * 1024  # a build of 5,000 jobs has 2 MB of records
ANSWER_S = 3.0  # of a master


def check_own_files(env: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Yield the findings about the directories, the variables and the masters of this user."""
    yield from _directory_checks()
    wrong = list(judge_variables(env))
    yield from wrong or [Finding(OWN, "variables", Level.OK, "the variables of termite are known")]
    yield from _master_checks(env)


def check_secret(path: Path) -> tuple[bytes, Finding]:
    """Return the secret, b"" if it is of no use, and the finding about its file."""
    try:
        secret = read_secret(path)
    except UserError as error:
        return b"", failure_of(OWN, "secret", error)
    return secret, Finding(OWN, "secret", Level.OK, f"{path} is readable by you alone")


def judge_variables(env: Mapping[str, str]) -> Iterator[Finding]:
    """Yield a warning for each variable of termite whose name or value has no meaning."""
    for name in sorted(name for name in env if name == "TERMITE" or name.startswith("TERMITE_")):
        if name not in VARIABLES:
            near = nearest_variable(name)
            mend = f"unset {name}" + (f"; export {near}={env[name]}" if near else "")
            yield Finding(OWN, "variables", Level.WARNING, f"{name} is no variable of termite, and is ignored", mend)
        elif env[name] and not is_accepted(name, env[name]):
            text = f"{name}={env[name]} is ignored: write {accepted_settings(name, env[name])}"
            yield Finding(OWN, "variables", Level.WARNING, text, f"export {name}={VARIABLES[name][0]}")


def _directory_checks() -> Iterator[Finding]:
    for about, kind in (("state", STATE), ("cache", CACHE)):
        first = candidates(kind)[0]
        try:
            used = own_directory(kind)
        except UserError as error:
            yield failure_of(OWN, about, error)
            continue
        free_bytes = _free_bytes(used)
        if free_bytes < LEAST_BYTES:
            text = f"{used}: {size_text(free_bytes)} are free, so that records, logs or stores may be lost"
            yield Finding(OWN, about, Level.WARNING, text, f"remove files from the disk of {used}")
        elif used == first:
            yield Finding(OWN, about, Level.OK, f"{used} is yours alone")
        else:
            reason, mend = _why_not(first, kind[0])
            yield Finding(OWN, about, Level.WARNING, f"{first}: {reason}; {used} is used instead", mend)


def _free_bytes(directory: Path) -> int:
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def _why_not(directory: Path, variable: str) -> tuple[str, str]:
    """Return why a directory is not used, and what mends that. `variable` may name another one."""
    if stranger := find_stranger(directory):
        return stranger, f"as root: chown -R {os.geteuid()} {directory} && chmod -R go-w {directory}"
    if os.path.isdir(directory):
        return "you may not write to it", f"as root: chown -R {os.geteuid()} {directory} && chmod -R u+rwX {directory}"
    if os.path.lexists(directory):
        return "it is no directory", f"mv {directory} {directory}.old"
    mend = f"unset {variable}" if os.environ.get(variable) else f"mkdir -p -m 700 {directory}"
    return "it cannot be made", mend


def _master_checks(env: Mapping[str, str]) -> Iterator[Finding]:
    sockets: dict[Path, None] = {}
    for places in living_places():
        if not isinstance(socket := places.get("socket"), str):
            continue
        if is_elsewhere(places):
            text = f"{Path(socket).parent} was moved or removed, and its master (process {places.get('pid')}) runs on"
            yield Finding(OWN, "master", Level.WARNING, text, f"kill {places.get('pid')}")
        else:
            sockets[Path(socket)] = None
    with suppress(UserError):
        if (here := client.find_socket(working_directory(), env)) is not None:
            sockets[here] = None
    for path in sockets:
        yield _master_check(path)


def _master_check(path: Path) -> Finding:
    tree = path.parent
    try:
        version = str(client.Client(path).ask(AskStatus(), ANSWER_S).get("version") or "an older version")
    except client.NoMaster as error:
        return Finding(OWN, "master", Level.WARNING, f"the master of {tree}: {error.message}", error.hint)
    except UserError as error:
        return Finding(OWN, "master", Level.WARNING, f"the master of {tree} does not say its state: {error.message}")
    if version == __version__:
        return Finding(OWN, "master", Level.OK, f"the master of {tree} answers")
    text = f"the master of {tree} is of {version}, and this termite of {__version__}"
    return Finding(OWN, "master", Level.WARNING, text, f"cd {tree} && termite-ctl shutdown")
