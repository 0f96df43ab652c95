"""Run a real sshd in a place: with host keys, users and a network of its own.

Everything that sshd needs outside of the place's directory is mounted in the place's namespace.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.places import Place
from tests.e2e.waiting import wait_until

SSHD = "/usr/sbin/sshd"
PORT = 2222
# scp needs the subsystem. sshd passes E2E_MARK on, so that what a session leaves is found
# (leftovers.py).
CONFIG = """\
Port {port}
ListenAddress {address}
HostKey {top}/host_key
PidFile none
UsePAM no
StrictModes yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AuthorizedKeysFile .ssh/authorized_keys
Subsystem sftp internal-sftp
SetEnv E2E_MARK={mark}
"""


@dataclass(frozen=True, slots=True)
class SshHost:
    """A place with a running sshd, and the user who logs in there."""

    where: Place
    user: str
    address: str
    port: int
    log: Path

    @property
    def url(self) -> str:
        """The address for `termite-ctl add`."""
        return f"ssh://{self.user}@{self.address}:{self.port}"

    @property
    def home(self) -> Path:
        return self.where.base / "home"

    def trusts(self, other: Place) -> None:
        """Let the user of another place log in with a key of its own."""
        (home := other.base / "home" / ".ssh").mkdir(exist_ok=True)
        key = home / "id_ed25519"
        if not key.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        (mine := self.home / ".ssh").mkdir(exist_ok=True)
        with (mine / "authorized_keys").open("a") as keys:
            keys.write(key.with_suffix(".pub").read_text())
        for place in (other, self.where):
            own(place, place.base / "home" / ".ssh")

    def is_known_to(self, other: Place, name: str = "") -> None:
        """Let the user of another place know the host key, of this address or `name`."""
        (home := other.base / "home" / ".ssh").mkdir(exist_ok=True)
        kind, key, *_ = (self.log.parent / "host_key.pub").read_text().split()
        with (home / "known_hosts").open("a") as known:
            known.write(f"{name or f'[{self.address}]:{self.port}'} {kind} {key}\n")
        own(other, home)


def own(where: Place, directory: Path) -> None:
    directory.chmod(0o700)
    for path in (directory, *directory.iterdir()):
        shutil.chown(path, where.uid, where.uid)


@contextmanager
def sshd(where: Place, address: str, port: int = PORT) -> Iterator[SshHost]:
    """Run sshd in a place with a network, as a machine does: as root, for its users."""
    (top := where.base / "sshd").mkdir()
    user = "builder" if where.uid else "root"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", top / "host_key"], check=True)
    mark = where.env["E2E_MARK"]
    (top / "config").write_text(CONFIG.format(port=port, address=address, top=top, mark=mark))
    (top / "shadow").write_text("".join(f"{name}:*:19000:0:99999:7:::\n" for name in ("root", "builder", "sshd")))
    (top / "shadow").chmod(0o600)
    script = f"""set -e
        sed 's,^root:[^\\n]*,root:x:0:0:root:{where.base}/home:/bin/sh,' /etc/passwd >{top}/passwd
        {"" if where.uid else f"mount --bind {top}/passwd /etc/passwd"}
        mount --bind {top}/shadow /etc/shadow
        mount -t tmpfs -o mode=755 tmpfs /run; mkdir /run/sshd
        exec {SSHD} -D -e -f {top}/config
    """
    log = top / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([*where.enter, "--", "sh", "-c", script], stdout=output, stderr=output)
    try:
        wait_until(lambda: "Server listening" in log.read_text(), "sshd listens", log.read_text)
        yield SshHost(where, user, address, port, log)
    finally:
        process.terminate()
        process.wait(10)
