"""Say in one line which dependency a build lacks, after a job has failed and then passed."""

import itertools
from collections.abc import Sequence

from termite.engine.history.logic.job_record import JobRecord, LateInput

NAMED_INPUTS = 3  # as many as a person reads in one line
TEXT_CHARACTERS = 80  # of a command that wrote no file


def missing_edge(job: JobRecord) -> str:
    """Return the line about a job, or "" if its record shows no missing dependency.

    A byte of a name that is no UTF-8 is a surrogate, so that the line must be made printable.
    """
    return missing_edge_text(job.files, job.text, job.late_inputs) if job.late_inputs and not job.exit_code else ""


def missing_edge_text(files: Sequence[bytes], text: str, late_inputs: Sequence[LateInput]) -> str:
    """Return the line about a job that wrote `files`, and whose command is `text`.

    `late_inputs` has at least one entry.
    """
    there = [found for found in late_inputs if found.is_there]
    inputs, state = (there, "there") if there else (late_inputs, "gone")
    verb = "were" if len(inputs) > 1 else "was"
    passed = f"failed, then passed when {late_inputs_text(inputs)} {verb} {state}"
    return f"{_subject(files, text)} {passed}: a dependency is missing"


def late_inputs_text(late_inputs: Sequence[LateInput]) -> str:
    """Return the inputs with the jobs that made them, such as `gen.h (made by job 3)`."""
    *first, last = map(_input_text, late_inputs[:NAMED_INPUTS])
    if len(late_inputs) > NAMED_INPUTS:
        first, last = [*first, last], "others"
    return f"{', '.join(first)} and {last}" if first else last


def _input_text(late_input: LateInput) -> str:
    return f"{late_input.path} (made by job {late_input.job})" if late_input.job else late_input.path


def _subject(files: Sequence[bytes], text: str) -> str:
    """Return the file after `-o`, or one that the command names, or any; the command if none is."""
    if not files:
        return f"`{text}`" if len(text) <= TEXT_CHARACTERS else f"`{text[:TEXT_CHARACTERS]}...`"
    words = [_name_in(word) for word in text.split()]
    outputs = {name for option, name in itertools.pairwise(words) if option == "-o"}
    names = [path.decode("utf-8", "surrogateescape") for path in files]

    def rank(path: str) -> int:
        name = _name_in(path)
        return 0 if name in outputs else 1 if name in words else 2

    return min(names, key=rank)


def _name_in(path: str) -> str:
    return path.rpartition("/")[2]
