"""A sandbox refuses a bad order, and the remover of a job's files follows no link.

An order is bad if it has a field twice, an unknown field, or a path that leads out of the mount.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.native.sandboxes import Sandboxes

KEYS = [
    *("mount", "lower", "scratch", "uid", "gid", "cwd", "umask", "exe", "search"),
    *("root", "hostname", "stdin", "stdin_offset", "stdin_closed", "nproc", "fsize", "memory"),
]
USUAL = {
    "root": "0",
    "hostname": "home",
    "stdin": "stdin/7",
    "stdin_offset": "0",
    "stdin_closed": "0",
    "nproc": "0",
    "fsize": "0",
    "memory": "0",
}


@pytest.fixture
def inputs(base: Path) -> Path:
    """Make the directory of the mount in which the standard input of a job is."""
    directory = base / "stdin"
    directory.mkdir(exist_ok=True)
    (directory / "7").write_text("from the mirror\n")
    return directory


def refusal(sandboxes: Sandboxes, **config: str) -> str:
    """Return why the order is refused. Fail if anything of the command ran."""
    job = sandboxes.run(["sh", "-c", "echo ran; cat"], config)
    assert (job.out, "status" in job.fields) == ("", False), job
    return job.fields["error"]


def test_an_order_with_every_field_is_run(sandboxes: Sandboxes, inputs: Path) -> None:
    assert sandboxes.run(["cat"], USUAL).out == "from the mirror\n"


@pytest.mark.attack
@pytest.mark.parametrize("extra", [4, 5, 200])
def test_an_order_with_more_descriptors_than_there_is_room_for_is_refused(sandboxes: Sandboxes, extra: int) -> None:
    # Six fit into a room of five, because it is rounded up.
    job = sandboxes.run(["sh", "-c", "echo ran"], extra=extra)
    assert (job.out, job.fields) == ("", {"error": "the configuration is incomplete"})


@pytest.mark.attack
@pytest.mark.parametrize("key", KEYS)
def test_a_field_that_comes_twice_is_refused_wherever_the_second_one_is(
    sandboxes: Sandboxes, inputs: Path, key: str
) -> None:
    said = f"the configuration's field '{key}' comes twice"
    for value in ("/", "1"):
        assert refusal(sandboxes, **USUAL | {"cwd": f"/home/me\0{key}={value}"}) == said


@pytest.mark.attack
def test_a_field_in_an_argument_is_refused(sandboxes: Sandboxes) -> None:
    job = sandboxes.run(["sh", "-c", "echo ran", "word\0lower=../.."])
    assert job.fields == {"error": "the configuration's field 'lower' comes twice"}


@pytest.mark.attack
def test_an_unknown_field_is_refused(sandboxes: Sandboxes) -> None:
    assert refusal(sandboxes, stdim="stdin/7") == "the configuration's field 'stdim' is unknown"


@pytest.mark.attack
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("uid", "-1"),
        ("uid", " 1"),
        ("uid", ""),
        ("gid", str(2**32 - 1)),
        ("umask", "1000"),
        ("umask", "9"),
        ("root", "2"),
        ("search", "yes"),
        ("stdin_closed", "7"),
        ("memory", str(2**64)),
        ("stdin_offset", str(2**63)),
    ],
)
def test_a_bad_number_is_refused(sandboxes: Sandboxes, inputs: Path, key: str, value: str) -> None:
    said = refusal(sandboxes, **USUAL | {key: value})
    assert said == f"the configuration's field '{key}' is a bad number"


@pytest.mark.attack
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mount", "x"),
        ("cwd", "home/me"),
        ("lower", "../../etc"),
        ("lower", "/etc"),
        ("lower", "root:/etc"),
        ("lower", "root::/etc"),
        ("lower", "root:base/../../x"),
        ("lower", "root:.."),
        ("lower", "root,upperdir=/tmp"),
    ],
)
def test_a_bad_path_is_refused(sandboxes: Sandboxes, key: str, value: str) -> None:
    assert "field" in refusal(sandboxes, **{key: value})


@pytest.mark.attack
@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "stdin/../../secret",
        "/etc/passwd",
        "stdin/link",
        "stdin/way/7",
        "stdin",
        "stdin/fifo",
        "stdin/gone",
    ],
)
def test_standard_input_is_a_regular_file_beneath_the_mount(sandboxes: Sandboxes, inputs: Path, name: str) -> None:
    for link, target in (("link", "7"), ("way", ".")):
        (inputs / link).unlink(missing_ok=True)
        (inputs / link).symlink_to(target)
    (inputs / "fifo").unlink(missing_ok=True)
    os.mkfifo(inputs / "fifo", 0o644)
    assert "stdin" in refusal(sandboxes, stdin=name, stdin_offset="0")


@pytest.mark.attack
def test_what_was_a_directory_and_is_a_link_now_is_removed_itself(sandbox_program: Path, tmp_path: Path) -> None:
    scratch, home = tmp_path / "scratch", tmp_path / "home"
    for directory in (scratch / "job/upper", scratch / "job/closed", home / "inner"):
        directory.mkdir(parents=True)
    (home / "key").write_text("private")
    home.chmod(0o555)
    (scratch / "link").symlink_to(home)
    (scratch / "file").write_text("x")
    (scratch / "job/upper/link").symlink_to(home)
    (scratch / "job/closed").chmod(0)
    subprocess.run([sandbox_program, "remove", scratch], input=b"link\0file\0job\0", check=True, timeout=30)
    assert list(scratch.iterdir()) == []
    assert (home.stat().st_mode & 0o777, sorted(os.listdir(home))) == (0o555, ["inner", "key"])
    home.chmod(0o755)
