"""Unpack a bundle on this host, and let its doctor try the host."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from typing import Any, BinaryIO

from termite.cli.ssh_hosts.far.place import FarMessage, FarRefusal, WorkerPlace, surroundings

DOCTOR_S = 60.0
UNPACKED_SHARE = 4  # an archive becomes so many times larger
PIECE_BYTES = 1 << 20


class HashedPart(io.RawIOBase):
    """The next `size` bytes of a stream, which are hashed as they are read."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream, self._left = stream, size
        self.sha256 = hashlib.sha256()

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read bytes; 0 at the end of the part."""
        got = self._stream.read(min(len(buffer), self._left))
        buffer[: len(got)] = got
        self._left -= len(got)
        self.sha256.update(got)
        return len(got)


def install(place: WorkerPlace, digest: str, size: int, stream: BinaryIO) -> FarMessage:
    """Unpack the bundle of this digest from the stream. Leave nothing if that fails."""
    place.bundles.mkdir(exist_ok=True)
    disk = os.statvfs(place.bundles)
    free, needed = disk.f_bavail * disk.f_frsize, UNPACKED_SHARE * size
    if free < needed:
        raise FarRefusal(
            f"the disk of {place.top} is full: {free >> 20} MiB are free, and {needed >> 20} are needed",
            f"remove files there: df {place.home}",
        )
    part = place.bundles / f"{digest}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        source = HashedPart(stream, size)
        with tarfile.open(fileobj=io.BufferedReader(source, PIECE_BYTES), mode="r|*") as archive:
            archive.extractall(part)
        while source.read(PIECE_BYTES):  # what follows the end of the archive counts, too
            pass
        if source.sha256.hexdigest() != digest:
            raise FarRefusal("the bundle was damaged on its way, or the connection broke", "try again")
        part.rename(place.bundles / digest)
    except (tarfile.TarError, EOFError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FarRefusal(
            f"the bundle cannot be unpacked in {place.bundles}: {reason}", f"see df {place.home}"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return {}


def tidy(place: WorkerPlace, digest: str) -> FarMessage:
    """Remove all bundles but one."""
    for path in place.bundles.glob("*"):
        if path.name != digest:
            shutil.rmtree(path, ignore_errors=True)
    return {}


def examine(place: WorkerPlace, digest: str) -> FarMessage:
    """Let the doctor of a bundle try this host, and return what fails."""
    words = [str(place.program(digest, "termite-ctl")), "doctor", "-json"]
    ran = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, timeout=DOCTOR_S, env=surroundings(place)
    )
    try:
        found = json.loads(ran.stdout)["findings"]
    except (ValueError, KeyError) as error:
        said = ran.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {ran.returncode}"]
        raise FarRefusal(f"the doctor of the bundle does not run here: {said[-1]}", "") from error
    return {"failures": [[one["text"], one["mend"]] for one in found if one["level"] == "failure"]}
