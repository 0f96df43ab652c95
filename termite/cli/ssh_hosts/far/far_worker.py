"""Start, inspect and end the worker of this host: as a service of the user, or detached."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from termite.cli.ssh_hosts.far.place import FarMessage, FarRefusal, WorkerPlace, send_line, surroundings
from termite.cli.ssh_hosts.far.user_services import (
    UNIT,
    ask_manager,
    has_user_manager,
    let_linger,
    missing_parents,
    remove_unit,
    start_unit,
    unlink_unit,
)

LISTEN_S = 60.0  # a worker on a slow machine reads 10 MB of modules
TERM_S = 20.0  # then a worker that was asked to end is killed
STEP_S = 0.05
NOTE_S = 5.0  # between two notes, which show that the other side is still there
LOG_LINES = 200
AS_SERVICE, DETACHED = "service", "detached"
CLAIMED = ("owner", "owner_id", "name")
TO_UNDO = ("lingers", "made")  # what was changed for a service, whatever the worker is now


def look(place: WorkerPlace) -> FarMessage:
    """Return what this host has, and what runs on it.

    Raise FarRefusal if the home is shared, and has the worker of another machine.
    """
    settings = place.read()
    _refuse_another_machine(place, settings)
    bundles = [path.name for path in place.bundles.glob("*") if not path.name.endswith(".part")]
    return {
        "architecture": os.uname().machine,
        "kernel": os.uname().release,
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "has": sorted(bundles),
        "peer": os.environ.get("SSH_CONNECTION", "").partition(" ")[0],
        "owner": settings.get("owner", ""),
        "owner_id": settings.get("owner_id", ""),
        "name": settings.get("name", ""),
        "digest": settings.get("digest", ""),
        "is_running": is_running(settings),
    }


def _this_machine() -> FarMessage:
    """Return what tells this machine from others that share the home."""
    try:
        number = Path("/etc/machine-id").read_text().strip()
    except OSError:
        number = ""
    return {"machine": number or os.uname().nodename, "node": os.uname().nodename}


def _refuse_another_machine(place: WorkerPlace, settings: FarMessage) -> None:
    if settings.get("machine", "") not in ("", _this_machine()["machine"]):
        node = settings.get("node", "another machine")
        raise FarRefusal(
            f"{place.top} has the worker of {node}, which shares this home",
            f"give this machine a user with another home: ssh://USER@HOST; if {node} is gone: rm -rf {place.top}",
        )


def claim(place: WorkerPlace, request: FarMessage) -> FarMessage:
    """Note whose worker will be here, and its name.

    Raise FarRefusal if these are not those that the other side has seen: another one was faster.
    """
    settings = place.read()
    if [settings.get("owner_id", ""), settings.get("name", "")] != request["seen"]:
        raise FarRefusal("another termite-ctl adds a worker there now", "termite-ctl ls shows it if it is one of yours")
    place.write(settings | {name: request[name] for name in CLAIMED} | _this_machine())
    return {}


def last_lines(place: WorkerPlace) -> FarMessage:
    """Return the end of what the worker has said since its start, and of its log since then."""
    lines: list[str] = []
    for path, begin in ((place.said, 0), (place.log, place.read().get("log_begin", 0))):
        with contextlib.suppress(OSError), path.open("rb") as file:  # the worker may not have written it
            file.seek(begin if begin <= os.fstat(file.fileno()).st_size else 0)  # else it was rotated
            lines += file.read().decode(errors="replace").splitlines()[-LOG_LINES:]
    return {"log": lines}


# -- the start --------------------------------------------------------------------------------------------------------


def start(place: WorkerPlace, request: FarMessage, secret: bytes) -> FarMessage:
    """Start the worker with the flags of the request, and wait until it listens.

    Raise FarRefusal with what the worker has said if it ends.
    """
    before = place.read()
    if is_running(before):
        raise FarRefusal("a worker that was added before runs there", "termite-ctl remove ends it")
    _write_secret(place, secret)
    settings = {name: request[name] for name in (*CLAIMED, "digest")} | _this_machine()
    settings |= {name: before[name] for name in TO_UNDO if name in before}
    settings["log_begin"] = place.log.stat().st_size if place.log.exists() else 0
    program = str(place.program(request["digest"], "termite-worker"))
    own = ["-secret", str(place.secret), "-cachedir", str(place.top / "cache"), "-logfile", str(place.log)]
    words = [program, *request["flags"], *own]
    place.said.write_text("")
    if has_user_manager() and (lingers := let_linger()) is not None:
        settings |= {"way": AS_SERVICE, "lingers": lingers or before.get("lingers", False)}
        settings["made"] = before.get("made", []) + missing_parents(place)
        place.write(settings)  # first, so that the other side can remove what follows
        start_unit(place, request["owner"], words)
    else:
        unlink_unit(place)  # of an earlier start: it would bring a second worker
        process = _start_detached(place, words)
        settings |= {"way": DETACHED, "pid": process.pid, "born": _birth_of(process.pid)}
        place.write(settings)
    _wait_until_it_listens(place, settings)
    return {"way": settings["way"]}


def _write_secret(place: WorkerPlace, secret: bytes) -> None:
    """Write the secret to a file that only this user can read, in place of an older one."""
    new = place.secret.with_suffix(".new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secret)
    new.replace(place.secret)


def _start_detached(place: WorkerPlace, words: list[str]) -> "subprocess.Popen[bytes]":
    """Start the worker in a session of its own, which a logout does not end."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the worker inherits this, and leaves it so
    with place.said.open("ab") as said:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            cwd="/",
            env=surroundings(place),
            start_new_session=True,
        )


def _wait_until_it_listens(place: WorkerPlace, settings: FarMessage) -> None:
    """Wait until the worker has said that it listens. If it has ended, raise FarRefusal."""
    deadline_s = time.monotonic() + LISTEN_S
    while time.monotonic() < deadline_s:
        if "termite-worker: listens" in place.said.read_text(errors="replace"):
            return
        if not is_running(settings):
            break
        time.sleep(STEP_S)
    lines = place.said.read_text(errors="replace").strip().splitlines()
    _end_worker(settings, signal.SIGTERM, 0.0)
    said = [line.removeprefix("termite-worker: ") for line in lines] or ["it says nothing"]
    text, hint = said[-2:] if len(said) > 1 else (said[-1], "")  # an error for users has two lines
    raise FarRefusal(f"the worker does not start: {text}", hint)


# -- the end ----------------------------------------------------------------------------------------------------------


def is_running(settings: FarMessage) -> bool:
    """Return whether the worker of these settings runs."""
    if settings.get("way") == AS_SERVICE:
        state = ask_manager("systemctl", "--user", "is-active", UNIT).stdout.strip()
        return state in ("active", "activating", "deactivating", "reloading")
    pid = settings.get("pid")
    return isinstance(pid, int) and _birth_of(pid) == settings.get("born") != ""


def _birth_of(pid: int) -> str:
    """Return when a process was started, in ticks since the boot; "" if it has ended."""
    with contextlib.suppress(ChildProcessError):  # only the program that has started it can wait for it
        os.waitpid(pid, os.WNOHANG)
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def stop(place: WorkerPlace, wait_s: float) -> FarMessage:
    """End the worker, after its jobs if they end within `wait_s`; 0: at once."""
    settings = place.read()
    if is_running(settings):
        _end_worker(settings, signal.SIGUSR2 if wait_s else signal.SIGTERM, wait_s)
    return {}


def _end_worker(settings: FarMessage, number: int, wait_s: float) -> None:
    """Send a signal to the worker, and wait until it has ended.

    After `wait_s` it gets SIGTERM, and after TERM_S more it is killed.
    """
    for sent, limit_s in ((number, wait_s), (signal.SIGTERM, TERM_S), (signal.SIGKILL, TERM_S)):
        if not is_running(settings):
            break
        _send_signal(settings, sent)
        began_s = noted_s = time.monotonic()
        while is_running(settings) and time.monotonic() - began_s < limit_s:
            time.sleep(STEP_S)
            if time.monotonic() - noted_s > NOTE_S:
                noted_s = time.monotonic()
                send_line({"note": "waits until its jobs have ended"})
    if settings.get("way") == AS_SERVICE:
        ask_manager("systemctl", "--user", "disable", "--now", UNIT)


def _send_signal(settings: FarMessage, number: int) -> None:
    """Send a signal to the worker alone."""
    if settings.get("way") == AS_SERVICE:
        ask_manager("systemctl", "--user", "kill", "--kill-who=main", f"--signal={int(number)}", UNIT)
    else:
        with contextlib.suppress(ProcessLookupError):
            os.kill(settings["pid"], number)


def clean(place: WorkerPlace, wait_s: float) -> FarMessage:
    """End the worker, and remove everything that was made here."""
    stop(place, wait_s)
    settings = place.read()
    if any(name in settings for name in TO_UNDO):
        remove_unit(place, settings)
    for directory, names, _ in os.walk(place.top):
        for name in names:  # overlayfs closes directories even to their owner
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                with contextlib.suppress(OSError):  # the message below says what stays
                    os.chmod(path, 0o700)
    shutil.rmtree(place.top, ignore_errors=True)
    if place.top.exists():
        raise FarRefusal(f"{place.top} could not be removed as a whole", f"there: rm -rf {place.top}")
    return {}
