"""Write what was recorded of a build to a file, for CI: JSON, or markdown that is appended."""

import json
import os
from errno import ELOOP, ENXIO
from pathlib import Path

from termite.cli.display.build_text import build_object, markdown
from termite.cli.readers.recorded_builds import RecordedBuilds
from termite.engine.errors import UserError
from termite.engine.host.ownership import is_own_link


def write_summary(file: Path, tree: Path, build: str) -> list[str]:
    """Write a build of a tree to `file`. Return a line for the user if that is impossible.

    If its name ends in .json, the file gets the build with all its jobs, and nothing else.
    Otherwise markdown is appended, as programs do with the file that $GITHUB_STEP_SUMMARY names.
    """
    try:
        records = RecordedBuilds(tree)
        found = records.build(build)
        jobs = records.past.jobs(found.id)
        is_json = file.suffix == ".json"
        text = json.dumps(build_object(found, jobs), indent=2) + "\n" if is_json else markdown(found, jobs)
        with open(_open_for_writing(file, os.O_TRUNC if is_json else os.O_APPEND), "w") as summary:
            summary.write(text)
    except OSError as error:
        return [f"{file} cannot be written: {error.strerror}"]
    except UserError as error:
        return [f"{file} is not written: {error}"]
    return []


def _open_for_writing(file: Path, how: int) -> int:
    """Open the file, which is made if it is missing. Raise OSError.

    Another user may have put a link or a FIFO there, if the file is in a directory like /tmp. A
    link counts only if it is the user's own or root's, and a FIFO only if somebody reads it.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC | how
    try:
        fd = os.open(file, flags | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno == ENXIO:
            raise OSError(ENXIO, "it is a FIFO that nobody reads") from None
        if error.errno != ELOOP:
            raise
        is_own_link(file)  # or it raises OSError
        fd = os.open(file, flags, 0o666)
    os.set_blocking(fd, True)
    return fd
