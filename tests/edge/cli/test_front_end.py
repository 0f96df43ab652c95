"""Front ends on a disk: which master, which tools and which directories they find."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from termite.cli.build_commands.build_tools import find_source, why_not_preloaded
from termite.cli.build_commands.cmake import split_program
from termite.cli.build_commands.front_end import loadable_name
from termite.cli.client import Client, NoMaster, choose_root, find_socket
from termite.engine.host.native_programs import native_program
from termite.engine.status.control_requests import AskStatus

OTHER_UID = 61000


def test_a_new_master_gets_the_checkout_else_where_the_build_was_started(tmp_path: Path) -> None:
    sub = tmp_path / "top" / "sub"
    sub.mkdir(parents=True)
    assert choose_root(sub, tmp_path / "top", env={}) == tmp_path / "top"
    assert choose_root(sub, sub, env={}) == sub
    (tmp_path / "top" / ".git").mkdir()
    assert choose_root(sub, sub, env={}) == tmp_path / "top"
    assert choose_root(sub, sub, env={"TERMITE_ROOT": str(tmp_path)}) == tmp_path


def test_the_socket_is_the_named_one_or_the_nearest_upwards(tmp_path: Path) -> None:
    assert find_socket(tmp_path, {"TERMITE_SOCKET": "/x/s"}) == Path("/x/s")
    assert find_socket(tmp_path, {"TERMITE_SOCKET": ""}) is None
    assert find_socket(tmp_path, {}) is None or not find_socket(tmp_path, {}).is_relative_to(tmp_path)  # type: ignore[union-attr]  # it is there


@pytest.mark.needs_root("becomes another user")
def test_root_does_not_ask_another_users_master(tmp_path: Path) -> None:
    path = tmp_path / ".termite-socket"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        os.seteuid(OTHER_UID)
        try:
            listening.listen()
        finally:
            os.seteuid(0)
        with pytest.raises(NoMaster, match="belongs to another user"):
            Client(path)
        os.chown(path, OTHER_UID, -1)
        assert find_socket(tmp_path, {}) is None or not find_socket(tmp_path, {}).is_relative_to(tmp_path)  # type: ignore[union-attr]  # it is there


def test_a_master_that_does_not_answer_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        with pytest.raises(NoMaster, match=f"process {os.getpid()}. does not answer .kill {os.getpid()}"):
            Client(tmp_path / "s").ask(AskStatus(), 0.01)


def test_a_build_does_not_wait_for_a_master_that_does_not_answer(tmp_path: Path) -> None:
    """The front end blocks signals and starts make, so that it needs a process of its own."""
    (tmp_path / "Makefile").write_text("all:\n\t@echo made\n")
    begin = (
        "from termite.cli import client; from termite.cli.build_commands import front_end, make\n"
        "client.BUILD_ANSWER_S = 0.2\n"
        "raise SystemExit(front_end.run_tool(make.MAKE, []))"
    )
    env = {"PATH": "/usr/bin:/bin", "TERMITE_SOCKET": "s"}
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        done = subprocess.run(
            [sys.executable, "-c", begin],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    assert (done.returncode, done.stdout) == (0, "made\n"), done
    assert f"termite: started without workers: the master (process {os.getpid()}) does not answer" in done.stderr


@pytest.mark.parametrize("tool", ["no-such-tool", "./no-such-tool"])
def test_a_tool_that_does_not_exist_is_one_line_and_starts_no_master(tmp_path: Path, tool: str) -> None:
    begin = f"from termite.cli.build_commands import build; raise SystemExit(build.run_build(['{tool}', 'x']))"
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TERMITE_LOCAL": "never"}
    command = [sys.executable, "-c", begin]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 127 and done.stderr.startswith(f"termite: {tool}"), done
    assert len(done.stderr.splitlines()) == 1 and not list(tmp_path.iterdir()), done


def test_a_program_that_would_ignore_the_preload_library_is_recognised(tmp_path: Path) -> None:
    assert why_not_preloaded(Path(os.path.realpath(sys.executable))) == ""
    script = tmp_path / "make"
    script.write_text("#!/bin/sh\n")
    assert why_not_preloaded(script) == ""
    script.chmod(0o4755)
    assert why_not_preloaded(script) == "is set-user-id or set-group-id"
    static = tmp_path / "static"
    static.write_bytes(
        b"\x7fELF\x02\x01"
        + b"\0" * 26
        + (64).to_bytes(8, "little")
        + b"\0" * 14
        + (56).to_bytes(2, "little")
        + (1).to_bytes(2, "little")
        + b"\0" * 6
        + b"\x01"
        + b"\0" * 55
    )
    assert why_not_preloaded(static) == "is linked statically"


@pytest.mark.parametrize("name", ["plain", "with space", "with:colon", "$ORIGIN"])
def test_the_preload_library_is_found_wherever_termite_is_installed(tmp_path: Path, name: str) -> None:
    library = tmp_path / name / "libtermite-exec.so"
    library.parent.mkdir()
    shutil.copy(native_program("libtermite-exec.so"), library)
    env = {**os.environ, "LD_PRELOAD": loadable_name(library)}
    mapped = subprocess.run(["cat", "/proc/self/maps"], env=env, capture_output=True, text=True, check=True, timeout=10)
    assert str(library) in mapped.stdout
    assert not mapped.stderr


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CMakeCache.txt", "# x\nCMAKE_HOME_DIRECTORY:INTERNAL={source}\nA:STRING=b\n"),
        ("meson-info/meson-info.json", '{{"directories": {{"source": "{source}"}}}}'),
        ("Makefile", "VPATH = ..\nsrcdir = ../src\nx: ; y\n"),
        ("Makefile", "srcdir = ..\ntop_srcdir = ../src \n"),
    ],
)
def test_the_sources_of_a_build_directory_are_found(tmp_path: Path, name: str, text: str) -> None:
    build, source = tmp_path / "build", tmp_path / "src"
    source.mkdir()
    (build / name).parent.mkdir(parents=True)
    assert find_source(build) is None
    (build / name).write_text(text.format(source=source))
    assert find_source(build) == source
    assert choose_root(build, build, source, env={}) == tmp_path


@pytest.mark.parametrize("text", ["srcdir = $(shell pwd)\n", "", "srcdir = no/such\n", "\x00\xff"])
def test_no_sources_are_made_up(tmp_path: Path, text: str) -> None:
    for name in ("CMakeCache.txt", "Makefile"):
        (tmp_path / name).write_text(text)
    assert find_source(tmp_path) is None


def test_the_cmake_to_use_may_be_named_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert split_program(("cmake", "-B", "x")) == ("cmake", ("-B", "x"))
    assert split_program(("/opt/bin/cmake", "--build", "x")) == ("/opt/bin/cmake", ("--build", "x"))
    assert split_program(("-B", "x")) == ("cmake", ("-B", "x"))
    (tmp_path / "cmake").mkdir()  # a source directory of this name, as LLVM has
    assert split_program(("cmake", "-B", "x")) == ("cmake", ("cmake", "-B", "x"))


@pytest.mark.needs_root("makes an entry of another user, in a directory of ours")
def test_what_another_user_has_put_into_a_directory_of_all_makes_no_checkout(tmp_path: Path) -> None:
    """Otherwise a build of root in /tmp would show and change all of /tmp."""
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / ".git").mkdir()
    os.chown(tmp_path / ".git", 61000, 61000)
    assert choose_root(project, project, env={}) == tmp_path
    tmp_path.chmod(0o1777)
    assert choose_root(project, project, env={}) == project
    os.chown(tmp_path / ".git", 0, 0)
    assert choose_root(project, project, env={}) == tmp_path


@pytest.mark.parametrize("name", ["CMakeCache.txt", "Makefile", "meson-info/meson-info.json"])
def test_nobody_waits_at_a_fifo_for_the_source_of_a_build(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / name)
    assert find_source(tmp_path) is None
