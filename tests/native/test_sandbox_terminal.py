"""The terminals that pid 1 gives a job: whose they are, and what they show."""

from tests.native.sandboxes import Sandboxes

STDIN, STDOUT, STDERR, APART, TYPED_AT = 1, 2, 4, 8, 16
WINDOW = {"rows": "33", "columns": "77", "width": "5", "height": "6"}
ALL = STDIN | STDOUT | STDERR


def on_terminals(sandboxes: Sandboxes, bits: int, script: str, typed: str = "") -> list[str]:
    """Run a script whose streams in `bits` are terminals. Return what they show."""
    job = sandboxes.run(["sh", "-c", script], WINDOW | {"terminals": str(bits)}, typed=typed)
    assert job.status == 0, job
    return [*job.terminals, job.out, job.err]


def test_a_terminal_has_the_window_and_leaves_output_as_it_is(sandboxes: Sandboxes) -> None:
    script = "stty size; tty; printf 'a\\tb\\n'; echo c >&2; stty -a | grep -o -e -opost"
    assert on_terminals(sandboxes, ALL, script) == ["33 77\n/dev/pts/0\na\tb\nc\n-opost\n", "", ""]


def test_only_the_named_streams_are_terminals(sandboxes: Sandboxes) -> None:
    for bits, terminal, out, err in (
        (STDOUT, "o\n", "", "e\n"),
        (STDERR, "e\n", "o\n", ""),
        (STDOUT | STDERR, "o\ne\n", "", ""),
    ):
        assert on_terminals(sandboxes, bits, "echo o; echo e >&2") == [terminal, out, err]
    assert on_terminals(sandboxes, STDIN | STDOUT, "test -t 0 && test -t 1 && ! test -t 2 && tty")[0] == "/dev/pts/0\n"
    assert on_terminals(sandboxes, STDOUT | STDERR | APART, "echo o; echo e >&2") == ["o\n", "e\n", "", ""]


def test_it_is_the_jobs_own_and_controls_its_session(sandboxes: Sandboxes) -> None:
    script = "echo /dev/pts/*; stat -c %u-%a /dev/pts/0; echo there >/dev/tty; : <>/dev/ptmx && echo another"
    assert on_terminals(sandboxes, ALL, script)[0] == "/dev/pts/0 /dev/pts/ptmx\n1000-620\nthere\nanother\n"
    assert sandboxes.sh("test -e /dev/pts/0 || : </dev/tty").status != 0


def test_all_of_a_large_output_is_there_when_the_job_is_dead(sandboxes: Sandboxes) -> None:
    assert on_terminals(sandboxes, ALL, "(seq 900; sleep 100) & seq 900 >&2; sleep 0.3")[0].count("\n") == 1800


def test_a_terminal_that_somebody_types_at_is_complete(sandboxes: Sandboxes) -> None:
    script = "read line; echo got $line; stty -a | grep -o -e ' iutf8'; kill -TSTP 0; echo goes on"
    shown = on_terminals(sandboxes, ALL | TYPED_AT, script, typed="wrogn\x7f\x7fng\r")[0]
    assert shown == "wrogn\b \b\b \bng\r\ngot wrong\r\n iutf8\r\ngoes on\r\n"
