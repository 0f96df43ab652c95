"""Install Debian packages that a part needs and that are missing; say so before."""

import os
import subprocess
from collections.abc import Sequence

from bench.rounds import BenchError
from projects import Say

LIMIT_S = 600


def install(packages: Sequence[str], say: Say) -> None:
    """Install the packages that are missing, with sudo if needed. Raise BenchError on failure."""
    missing = [package for package in packages if not _is_installed(package)]
    if not missing:
        return
    say(f"installing Debian packages: {' '.join(missing)}")
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    get = [*as_root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    install_them = [*get, "install", "-y", "--no-install-recommends", *missing]
    if _run(install_them) and (_run([*get, "update"]) or _run(install_them)):
        raise BenchError(f"cannot install {' '.join(missing)}: {' '.join(install_them)}")


def _is_installed(package: str) -> bool:
    command = ["dpkg-query", "-W", "-f", "${db:Status-Status}", package]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout == "installed"


def _run(command: Sequence[str]) -> int:
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S).returncode
    except OSError as error:
        raise BenchError(f"{command[0]}: {error.strerror}") from error
