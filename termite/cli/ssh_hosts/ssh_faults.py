"""Say what a failure of ssh means, and what to do.

ssh ends with 255 whatever has failed, and only its messages tell more. They are the same in every
language. A message that is not known here is shown as it is.
"""

import re

from termite.cli.written_files.host_list import HostAddress
from termite.engine.errors import UserError

_NO_PYTHON = re.compile(r"no-python (\S+) ?(.*)")


def ssh_error(address: HostAddress, code: int, said: str) -> UserError:
    """Return the error for a ssh that ended with `code`, and has written `said` to stderr."""
    by_hand = f"ssh {' '.join(word for word in address.words if word != '--')}"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    for sign, text, hint in (
        (
            "REMOTE HOST IDENTIFICATION HAS CHANGED",
            "its host key is not the one that ssh knows: it was installed anew, or this is another machine",
            f"ask its owner for the new key, then: ssh-keygen -R {_known_name(address)}, and {by_hand}",
        ),
        ("Host key verification failed", "its host key is not known", f"{by_hand}, and compare the key that it shows"),
        (
            "Permission denied",
            "it does not let you in without a password, which termite never asks for",
            f"ssh-copy-id {by_hand.removeprefix('ssh ')}; if your key has a passphrase: ssh-add",
        ),
        ("Could not resolve hostname", "there is no machine of this name", "see the name, or ~/.ssh/config"),
        ("Connection refused", "no sshd listens there", "on that machine: systemctl start ssh; see the port"),
        ("timed out", "it does not answer", "see that it is on, and that firewalls let ssh through"),
        ("No route to host", "there is no way to it", "see that it is on, and that the network leads there"),
        ("Network is unreachable", "there is no way to it", "see that the network leads there"),
    ):
        if any(sign in line for line in lines):
            return UserError(f"{address.text}: {text}", hint=hint)
    last = lines[-1] if lines else f"ssh ended with {code}"
    return UserError(f"{address.text}: {last}", hint=f"try {by_hand} true")


def no_python_error(address: HostAddress, python: str, said: str) -> UserError | None:
    """Return the error for a host that lacks the path `python`, or None for other answers."""
    found = _NO_PYTHON.fullmatch(said)
    if found is None:
        return None
    other = f"; its python3 is {found[2]}" if found[2].startswith("Python") else ""
    hint = "as root there, on Debian 12: apt-get install python3; the bundle runs with no other version"
    return UserError(f"{address.text}: there is no {python}{other}", hint=hint)


def _known_name(address: HostAddress) -> str:
    return f"'[{address.host}]:{address.port}'" if address.port else address.host
