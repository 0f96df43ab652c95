"""Test the line about a job that failed, and passed when an input had changed."""

from termite.engine.history.logic.job_record import JobRecord, LateInput
from termite.engine.history.logic.missing_edges import TEXT_CHARACTERS, missing_edge, missing_edge_text
from tests.unit.tables import each_row

GEN = LateInput("gen.h", job=3)
CC = "gcc -c x.c -MD -MF x.d -o x.o"


def test_the_line_names_the_output_the_input_and_the_job_that_made_it() -> None:
    line = "x.o failed, then passed when gen.h (made by job 3) was there: a dependency is missing"
    assert missing_edge_text([b"x.d", b"x.o"], CC, [GEN]) == line


@each_row(
    ("inputs", "words"),
    [
        ([LateInput("gen.h")], "gen.h was there"),
        ([LateInput("old.h", is_there=False)], "old.h was gone"),
        ([LateInput("old.h", is_there=False), GEN], "gen.h (made by job 3) was there"),
        ([GEN, LateInput("a.h")], "gen.h (made by job 3) and a.h were there"),
        ([LateInput(f"{n}.h") for n in range(3)], "0.h, 1.h and 2.h were there"),
        ([LateInput(f"{n}.h") for n in range(9)], "0.h, 1.h, 2.h and others were there"),
    ],
)
def test_inputs_are_named_as_a_person_would(inputs: list[LateInput], words: str) -> None:
    assert f" when {words}: " in missing_edge_text([b"x.o"], CC, inputs)


@each_row(
    ("files", "text", "subject"),
    [
        ([b"x.d", b"x.o"], CC, "x.o"),
        ([b"out/x.d", b"out/x.o"], "cc -c x.c -MD -o out/x.o", "out/x.o"),
        ([b"log", b"made"], "./gen made", "made"),
        ([b"log", b"made"], "./gen", "log"),
        ([], "./check", "`./check`"),
        ([], "x" * 100, f"`{'x' * TEXT_CHARACTERS}...`"),
        ([b"\xff"], "./gen", "\udcff"),
    ],
)
def test_a_job_is_named_by_what_it_made_or_by_its_command(files: list[bytes], text: str, subject: str) -> None:
    assert missing_edge_text(files, text, [GEN]).partition(" failed")[0] == subject


def test_a_job_that_failed_again_shows_no_missing_dependency() -> None:
    def line(code: int, *inputs: LateInput) -> str:
        return missing_edge(JobRecord(id=1, build=1, text=CC, cwd="/", exit_code=code, late_inputs=inputs))

    assert line(0, GEN).startswith("`gcc")
    assert [line(1, GEN), line(-1, GEN), line(0)] == ["", "", ""]
