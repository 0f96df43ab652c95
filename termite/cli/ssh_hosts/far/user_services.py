"""Run the worker as a service of the user's systemd, if that may outlive his logins."""

import os
import pwd
import subprocess
from pathlib import Path

from termite.cli.ssh_hosts.far.place import FarMessage, FarRefusal, WorkerPlace, surroundings

UNIT = "termite-added-worker.service"  # termite-worker.service may be the user's own
ASK_S = 10.0  # systemctl and loginctl
START_S = 60.0
_TEXT = """\
[Unit]
Description=termite worker, added by {owner}

[Service]
Type=notify
NotifyAccess=main
{environment}
ExecStart={command}
StandardOutput=append:{said}
StandardError=append:{said}
Restart=on-failure
RestartSec=2
RestartPreventExitStatus=100
KillMode=mixed
TimeoutStopSec=30
Delegate=memory
OOMPolicy=continue

[Install]
WantedBy=default.target
"""


def unit_file(place: WorkerPlace) -> Path:
    """Return the unit of the worker."""
    return place.home / ".config/systemd/user" / UNIT


def ask_manager(*words: str, limit_s: float = ASK_S) -> "subprocess.CompletedProcess[str]":
    """Run systemctl or loginctl. A missing program fails as any other.

    Raise FarRefusal if it does not end: then nobody knows whether the worker runs.
    """
    try:
        return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired as error:
        text = f"{' '.join(words[:3])} has not answered in {limit_s:.0f} s"
        raise FarRefusal(text, "try again when that machine is less busy; there: systemctl --user status") from error
    except OSError as error:
        return subprocess.CompletedProcess(words, 1, "", str(error))


def has_user_manager() -> bool:
    """Return whether systemd runs services of this user."""
    return ask_manager("systemctl", "--user", "show-environment").returncode == 0


def let_linger() -> bool | None:
    """Let services of this user outlive his logins. Return None if that is forbidden.

    Return True if it was changed, so that it must be changed back.
    """
    name = pwd.getpwuid(os.geteuid()).pw_name
    if ask_manager("loginctl", "show-user", name, "--property=Linger", "--value").stdout.strip() == "yes":
        return False
    return True if ask_manager("loginctl", "--no-ask-password", "enable-linger", name).returncode == 0 else None


def unit_text(place: WorkerPlace, owner: str, words: list[str]) -> str:
    """Return the unit that runs a command."""
    xdg = {name: value for name, value in surroundings(place).items() if name.startswith("XDG_")}
    environment = "\n".join(f"Environment={quoted(f'{name}={value}')}" for name, value in xdg.items())
    command = " ".join(quoted(word).replace("$", "$$") for word in words)
    said = str(place.said).replace("%", "%%")
    shown = "".join(filter(str.isprintable, owner)).replace("%", "%%")
    return _TEXT.format(owner=shown, environment=environment, command=command, said=said)


def quoted(word: str) -> str:
    """Return a word as a unit file has it (systemd.syntax(7))."""
    escaped = "".join(f"\\x{ord(char):02x}" if ord(char) < 32 or char in '"\\' else char for char in word)
    return f'"{escaped}"'.replace("%", "%%")


def missing_parents(place: WorkerPlace) -> list[str]:
    """Return the directories that must be made for the unit, the outer ones first."""
    parents = [path for path in unit_file(place).parents if path.is_relative_to(place.home)]
    return [str(parent) for parent in reversed(parents) if not parent.exists()]


def start_unit(place: WorkerPlace, owner: str, words: list[str]) -> None:
    """Start the worker as a service, which also starts with the machine."""
    unit = unit_file(place)
    for parent in missing_parents(place):
        Path(parent).mkdir(mode=0o700)
    unit.write_text(unit_text(place, owner, words))
    ask_manager("systemctl", "--user", "daemon-reload")
    ask_manager("systemctl", "--user", "enable", "--now", UNIT, limit_s=START_S)


def unlink_unit(place: WorkerPlace) -> None:
    """Remove the unit, and the link by which it starts with the machine."""
    unit = unit_file(place)
    for path in (unit, unit.parent / "default.target.wants" / UNIT):
        path.unlink(missing_ok=True)


def remove_unit(place: WorkerPlace, settings: FarMessage) -> None:
    """Remove the unit, and everything that was changed for it."""
    unlink_unit(place)
    ask_manager("systemctl", "--user", "daemon-reload")
    if settings.get("lingers"):
        ask_manager("loginctl", "--no-ask-password", "disable-linger", pwd.getpwuid(os.geteuid()).pw_name)
    for parent in reversed(settings.get("made", [])):
        try:
            Path(parent).rmdir()
        except OSError:  # another service is there
            break
