"""Write what was recorded of a build to a file, for CI: JSON, or markdown that is appended."""

import json
from pathlib import Path

from termite.cli.display.build_text import build_object, markdown
from termite.cli.readers.recorded_builds import RecordedBuilds
from termite.engine.errors import UserError


def write_summary(file: Path, tree: Path, build: str) -> None:
    """Write a build of a tree to `file`.

    If its name ends in .json, the file gets the build with all its jobs, and nothing else.
    Otherwise markdown is appended, as programs do with the file that $GITHUB_STEP_SUMMARY names.
    Raise UserError if the build is not recorded, or if the file cannot be written.
    """
    records = RecordedBuilds(tree)
    found = records.build(build)
    jobs = records.past.jobs(found.id)
    try:
        if file.suffix == ".json":
            file.write_text(json.dumps(build_object(found, jobs), indent=2) + "\n")
        else:
            with file.open("a") as summary:
                summary.write(markdown(found, jobs))
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}") from error
