"""The facts that every packed file shares: version, time and architecture."""

import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import termite

CHECKOUT = Path(__file__).resolve().parents[2]
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"  # pyfuse3 is compiled for this one only
DEBIAN_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}
_FIRST_OF_ZIP_S = 315532800  # 1980-01-01


class PackingError(Exception):
    """An error that the caller of `make dist` can mend. Its text says how."""


@dataclass(frozen=True, slots=True)
class Release:
    """A release. `epoch_s` is the time of every packed file, in seconds since 1970."""

    version: str
    epoch_s: int
    machine: str

    @property
    def debian_machine(self) -> str:
        """The name that Debian has for the architecture."""
        return DEBIAN_NAMES.get(self.machine, self.machine)

    @property
    def zip_time(self) -> tuple[int, int, int, int, int, int]:
        """The time as a zip file has it: in UTC, and not before 1980."""
        then = time.gmtime(max(self.epoch_s, _FIRST_OF_ZIP_S))
        return (then.tm_year, then.tm_mon, then.tm_mday, then.tm_hour, then.tm_min, then.tm_sec)


def this_release() -> Release:
    """Return the release of this checkout.

    Its time is $SOURCE_DATE_EPOCH, or else that of the last commit. Raise PackingError if there is
    neither.
    """
    return Release(termite.__version__, _epoch_s(), platform.machine())


def _epoch_s() -> int:
    named = os.environ.get("SOURCE_DATE_EPOCH", "")
    if named:
        if not named.isdecimal():
            raise PackingError(f"SOURCE_DATE_EPOCH={named} is no number of seconds since 1970")
        return int(named)
    asked = subprocess.run(
        ["git", "-C", str(CHECKOUT), "log", "-1", "--format=%ct"], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        raise PackingError("this is no checkout of git: set SOURCE_DATE_EPOCH to the time of the release")
    return int(asked.stdout)
