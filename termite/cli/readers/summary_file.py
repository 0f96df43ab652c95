"""Write what was recorded of a build to a file, for CI: JSON, or markdown that is appended."""

import json
from pathlib import Path

from termite.cli.display.build_text import build_object, markdown
from termite.cli.readers.recorded_builds import RecordedBuilds
from termite.engine.errors import UserError


def write_summary(file: Path, tree: Path, build: str) -> list[str]:
    """Write a build of a tree to `file`. Return a line for the user if that is impossible.

    If its name ends in .json, the file gets the build with all its jobs, and nothing else.
    Otherwise markdown is appended, as programs do with the file that $GITHUB_STEP_SUMMARY names.
    """
    try:
        records = RecordedBuilds(tree)
        found = records.build(build)
        jobs = records.past.jobs(found.id)
        if file.suffix == ".json":
            file.write_text(json.dumps(build_object(found, jobs), indent=2) + "\n")
        else:
            with file.open("a") as summary:
                summary.write(markdown(found, jobs))
    except OSError as error:
        return [f"{file} cannot be written: {error.strerror}"]
    except UserError as error:
        return [f"{file} is not written: {error}"]
    return []
