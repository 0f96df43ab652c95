"""An error that a person must mend is one clear line with a hint: no traceback, no hang."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from termite.cli.claims import PATIENCE_S
from termite.cli.flags import VERSION
from tests.e2e.cluster import HOST, copy_secret, daemon, free_port, new_secret, new_tree, start_worker
from tests.e2e.conftest import MakePlace, needs_root
from tests.e2e.places import Outcome, Place
from tests.e2e.waiting import wait_until

DAEMONS = ["termite-coordinator", "termite-worker", "termite-master"]


@pytest.fixture(scope="module")
def where(make_place: MakePlace) -> Iterator[Place]:
    with make_place("ordinary") as made:
        yield made


def expect_line(done: Outcome, program: str, *words: str) -> None:
    """One line `program: what is wrong`, at most one more with a hint, exit code 100."""
    lines = done.stderr.decode().splitlines()
    assert done.code == 100, done
    assert 1 <= len(lines) <= 2, done
    assert all(line.startswith(f"{program}: ") for line in lines), done
    told = done.stderr.decode().lower()
    assert all(word.lower() in told for word in words), (words, done)


def run(where: Place, program: str, *arguments: str) -> Outcome:
    return where.run([where.termite(program), *arguments], new_directory(where), timeout_s=30)


def new_directory(where: Place) -> Path:
    return new_tree(where, f"d{len(list(where.base.iterdir()))}").path


def test_every_program_says_the_version_of_termite(where: Place) -> None:
    programs = [*DAEMONS, "termite", "termite-build", "termite-ctl", "termite-redo"]
    for program in programs:
        done = run(where, program, "--version")
        assert (done.code, done.stdout, done.stderr) == (0, f"{program} {VERSION}\n".encode(), b""), done
    for tool, flags in (("make", ("--version", "-v")), ("ninja", ("--version",)), ("cmake", ("--version", "-version"))):
        for flag in flags:
            done, plain = run(where, f"termite-{tool}", flag), where.run([tool, flag], where.base)
            assert (done.code, done.stdout) == (plain.code, plain.stdout), "scripts read the version of the tool"
            assert done.stderr.decode() == f"termite: termite-{tool} {VERSION}\n", done


@pytest.mark.parametrize("program", DAEMONS)
def test_a_missing_secret(where: Place, program: str) -> None:
    done = run(where, program, "-secret", "nosuch.txt")
    expect_line(done, program, "nosuch.txt", "termite-ctl secret")


@pytest.mark.parametrize("program", DAEMONS)
def test_a_secret_that_others_may_read(where: Place, program: str) -> None:
    tree = new_tree(where, f"open-{program}")
    secret = tree.write("secret.txt", "0123456789abcdef0123456789abcdef", mode=0o644)
    expect_line(run(where, program, "-secret", str(secret)), program, str(secret), "chmod")


@pytest.mark.parametrize("program", DAEMONS)
def test_a_secret_that_can_be_guessed(where: Place, program: str) -> None:
    tree = new_tree(where, f"short-{program}")
    secret = tree.write("secret.txt", "short", mode=0o600)
    expect_line(run(where, program, "-secret", str(secret)), program, str(secret), "16")


@pytest.mark.parametrize("program", ["termite-coordinator", "termite-worker"])
def test_a_port_in_use(where: Place, program: str) -> None:
    secret = secret_of(where)
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        done = run(where, program, "-secret", str(secret), "-listen", HOST, "-port", str(port))
    expect_line(done, program, str(port), "in use")


def secret_of(where: Place) -> Path:
    path = where.base / "secret.txt"
    return path if path.exists() else new_secret(where)


@pytest.mark.parametrize("program", [*DAEMONS, "termite-ctl"])
def test_help_is_for_people(where: Place, program: str) -> None:
    done = run(where, program, "--help")
    assert done.code == 0
    assert b"usage" in done.stdout.lower()
    assert len(done.stdout.splitlines()) > 8


@pytest.mark.parametrize("program", [*DAEMONS, "termite-ctl"])
def test_an_unknown_flag(where: Place, program: str) -> None:
    words = ("status",) if program == "termite-ctl" else ()
    expect_line(run(where, program, *words, "-nosuchflag"), program, "there is no flag -nosuchflag", "--help")


def test_a_misspelt_flag_or_value_of_a_daemon_gets_the_right_one_in_one_line(where: Place) -> None:
    for program, words, line in (
        ("termite-worker", ("-cachdir", "x"), "there is no flag -cachdir: write -cachedir"),
        ("termite-master", ("-log-levle=info",), "there is no flag -log-levle: write -log-level"),
        ("termite-coordinator", ("-log-format", "jsn"), "there is no -log-format jsn: write -log-format json"),
        ("termite-worker", ("-scratch", "x"), "there is no -scratch x: write -scratch auto or tmpfs or disk"),
        ("termite-ctl", ("cache", "clean1"), "there is no clean1: write clean"),
    ):
        done = run(where, program, *words)
        assert done == Outcome(100, b"", f"{program}: {line}\n".encode())


@pytest.mark.parametrize("dashes", ["-", "--"])
def test_flags_take_one_dash_or_two(where: Place, dashes: str) -> None:
    secret, port = secret_of(where), free_port()
    arguments = (f"{dashes}secret", str(secret), f"{dashes}port", str(port))
    with daemon(where, "termite-coordinator", *arguments) as running:
        assert str(port) in running.text()
        assert len(running.text().splitlines()) == 1


@pytest.mark.parametrize("command", [("status",), ("refresh",), ("logs",), ("why", "gcc")])
def test_asking_a_master_that_is_not_there(where: Place, command: tuple[str, ...]) -> None:
    expect_line(run(where, "termite-ctl", *command), "termite-ctl", "master")


def test_ending_a_master_that_is_not_there_is_a_success(where: Place) -> None:
    done = run(where, "termite-ctl", "shutdown")
    assert (done.code, done.stderr) == (0, b"") and done.stdout.startswith(b"nothing to end: no master runs"), done


@pytest.mark.parametrize("words", [("status",), ("start",), ("start", "sub"), ("why", "gcc"), ("shutdown",)])
def test_asking_from_a_directory_that_was_removed(where: Place, words: tuple[str, ...]) -> None:
    done = in_a_removed_directory(where, "termite-ctl", *words)
    expect_line(done, "termite-ctl", "the current directory has been removed")


def test_a_master_and_a_build_in_a_directory_that_was_removed(where: Place) -> None:
    done = in_a_removed_directory(where, "python", where.termite("termite-master"), "-secret", str(secret_of(where)))
    expect_line(done, "termite-master", "the current directory has been removed")
    done = in_a_removed_directory(where, "termite-make", "-s", "--eval=all:;echo on")
    assert b"Traceback" not in done.stderr
    assert b"the current directory has been removed" in done.stderr


def in_a_removed_directory(where: Place, program: str, *arguments: str) -> Outcome:
    """Run a program there.

    A script needs the interpreter: in a path with spaces it begins with a shell's line.
    """
    script = 'cd "$(mktemp -d)" && rmdir "$PWD" && exec "$@"'
    return where.run(["sh", "-c", script, "sh", where.termite(program), *arguments], where.base, timeout_s=30)


def test_a_second_master_in_one_tree(where: Place) -> None:
    tree = new_tree(where, "twice")
    with daemon(where, "termite-master", "-secret", str(secret_of(where)), cwd=tree.path):
        done = where.run([where.termite("termite-master"), "-secret", str(secret_of(where))], tree.path, timeout_s=30)
    expect_line(done, "termite-master", ".termite-socket")


def test_a_master_with_its_cluster_inside_can_be_started_by_hand(where: Place) -> None:
    tree = new_tree(where, "by-hand")
    started = time.monotonic()
    with daemon(where, "termite-master", "-embedded", cwd=tree.path):
        assert time.monotonic() - started < PATIENCE_S, "it has waited for itself"
        assert tree.termite("echo", "there").stdout == b"there\n"
        assert tree.jobs() == 1


def test_a_stale_socket_is_replaced(where: Place) -> None:
    tree = new_tree(where, "stale")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tree.path / ".termite-socket"))
    tree.own(tree.path / ".termite-socket")
    with daemon(where, "termite-master", "-secret", str(secret_of(where)), cwd=tree.path):
        assert tree.ctl("status").code == 0


def test_a_missing_coordinator_is_one_line_and_the_build_runs_here(where: Place) -> None:
    tree = new_tree(where, "alone")
    address = f"{HOST}:{free_port()}"
    arguments = ("-secret", str(secret_of(where)), "-coordinator", address)
    with daemon(where, "termite-master", *arguments, cwd=tree.path) as master:
        done = tree.termite("echo", "here", timeout_s=60)
        assert (done.code, done.stdout) == (0, b"here\n")
        assert master.text().count("coordinator-missing") == 1, master.text()
        assert address in master.text()
        assert "termite-coordinator" in master.text()
        assert "Traceback" not in master.text()
        assert b"on this machine" in done.stderr


def test_a_worker_waits_for_its_coordinator_and_says_so_once(where: Place) -> None:
    port = free_port()
    with start_worker(where, secret_of(where), f"{HOST}:{port}", "early") as worker:
        wait_until(lambda: worker.text().count(str(port)) >= 2, "the worker says what it waits for", worker.text)
        with daemon(where, "termite-coordinator", "-secret", str(secret_of(where)), "-port", str(port)):
            tree = new_tree(where, "early")
            arguments = ("-secret", str(secret_of(where)), "-coordinator", f"{HOST}:{port}")
            with daemon(where, "termite-master", *arguments, cwd=tree.path):
                wait_until(lambda: bool(tree.status()["known_workers"]), "the worker is found", worker.text)


def test_a_wrong_secret_is_one_line_on_each_side_and_the_build_runs_here(where: Place, make_place: MakePlace) -> None:
    with make_place("ordinary") as stranger:
        wrong = new_secret(stranger)
        tree = new_tree(stranger, "project")
        address = f"{HOST}:{free_port()}"
        arguments = ("-secret", str(secret_of(where)), "-port", address.partition(":")[2])
        with (
            daemon(where, "termite-coordinator", *arguments) as coordinator,
            daemon(stranger, "termite-master", "-secret", str(wrong), "-coordinator", address, cwd=tree.path) as master,
        ):
            wait_until(lambda: "secret" in master.text(), "the master says why", master.text)
            wait_until(lambda: "secret" in coordinator.text(), "the coordinator says why", coordinator.text)
            assert tree.termite("echo", "here").stdout == b"here\n"
            assert "Traceback" not in master.text() + coordinator.text()
            assert master.text().count("coordinator-missing") == 1, master.text()


WORKER = ("-port", "0", "-coordinator", f"{HOST}:9")


@needs_root
def test_a_worker_without_dev_fuse(places: Callable[..., Place]) -> None:
    at = places("no-fuse")
    done = run(at, "termite-worker", "-secret", str(secret_of(at)), *WORKER)
    expect_line(done, "termite-worker", "/dev/fuse", "modprobe fuse")


@needs_root
def test_a_worker_that_may_not_open_dev_fuse(places: Callable[..., Place]) -> None:
    at = places("closed-fuse")
    done = run(at, "termite-worker", "-secret", str(secret_of(at)), *WORKER)
    expect_line(done, "termite-worker", "/dev/fuse", "chmod")


@needs_root
def test_termite_make_without_dev_fuse_builds_here_and_says_why(places: Callable[..., Place]) -> None:
    at = places("closed-fuse")
    tree = new_tree(at)
    tree.write("Makefile", "all:\n\t@echo made\n")
    done = tree.make(timeout_s=60)
    assert (done.code, done.stdout) == (0, b"made\n")
    assert b"/dev/fuse" in done.stderr
    assert len(done.stderr.splitlines()) <= 2, done


def without_user_namespaces(where: Place, *argv: str) -> list[str]:
    """In a user namespace of its own, whose limit of further ones is set to none."""
    forbid = 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"'
    return ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, "sh", *argv]


def test_a_worker_where_user_namespaces_are_forbidden(where: Place) -> None:
    argv = without_user_namespaces(where, where.termite("termite-worker"), "-secret", str(secret_of(where)), *WORKER)
    done = where.run(argv, new_directory(where), timeout_s=30)
    expect_line(done, "termite-worker", "user namespaces", "max_user_namespaces")


def test_a_worker_on_an_old_kernel(where: Place) -> None:
    argv = ["setarch", "--uname-2.6", where.termite("termite-worker"), "-secret", str(secret_of(where)), *WORKER]
    done = where.run(argv, new_directory(where), timeout_s=30)
    expect_line(done, "termite-worker", "2.6.", "5.11")


def test_a_malformed_rule_file_stops_every_start(where: Place) -> None:
    tree = new_tree(where, "misspelt")
    tree.write(".termite-localrc", '[{"Regexp": "^ar ", "Networ": true}]')
    tree.write("Makefile", "all:\n\t@echo built\n")
    said = "entry 1: there is no key Networ: write Network"
    for program, words in (
        ("termite-make", ()),
        ("termite-ctl", ("start", ".")),
        ("termite-master", ("-secret", str(secret_of(where)))),
    ):
        done = where.run([where.termite(program), *words], tree.path, timeout_s=60)
        assert (done.code, done.stdout) == (100, b""), done
        expect_line(done, program, said, str(tree.path))
    plain = where.run([where.termite("termite"), "echo", "on"], tree.path, timeout_s=30)
    assert (plain.code, plain.stdout) == (0, b"on\n"), plain


def test_a_rule_file_that_becomes_malformed_is_told_once_to_who_builds(where: Place) -> None:
    tree = new_tree(where, "malformed")
    with daemon(where, "termite-master", "-secret", str(secret_of(where)), cwd=tree.path) as master:
        tree.write(".termite-localrc", '[{"Regexp": "("}]')
        done = [tree.termite("echo", "on"), tree.termite("echo", "on")]
        assert [outcome.stdout for outcome in done] == [b"on\n", b"on\n"]
        assert sum(outcome.stderr.count(b"entry 1: ") for outcome in done) == 1, done
        assert "Traceback" not in master.text()


def test_a_rule_file_that_becomes_no_file_stops_nobody(where: Place) -> None:
    tree = new_tree(where, "fifo")
    with daemon(where, "termite-master", "-secret", str(secret_of(where)), cwd=tree.path):
        os.mkfifo(tree.path / ".termite-localrc")
        done = tree.termite("echo", "on", timeout_s=30)
    assert done.stdout == b"on\n"
    assert b".termite-localrc: not a regular file" in done.stderr


def test_a_socket_in_a_directory_that_is_not_there(where: Place) -> None:
    done = run(where, "termite-master", "-secret", str(secret_of(where)), "-socket", "/nowhere/s")
    expect_line(done, "termite-master", "/nowhere/s", "-socket")


def test_a_socket_where_a_directory_is(where: Place) -> None:
    tree = new_tree(where, "taken")
    tree.mkdir("s")
    done = where.run([where.termite("termite-master"), "-secret", str(secret_of(where)), "-socket", "s"], tree.path)
    expect_line(done, "termite-master", str(tree.path / "s"))
    assert os.listdir(tree.path) == ["s"]


@pytest.mark.parametrize(
    "words",
    [("-jobs", "-1"), ("-keepalive", "nan"), ("-idle-exit", "-1"), ("-coordinator", ""), ("-coordinator", "a:b")],
)
def test_a_flag_of_the_master_that_means_nothing(where: Place, words: tuple[str, str]) -> None:
    done = run(where, "termite-master", "-secret", str(secret_of(where)), *words)
    expect_line(done, "termite-master", words[0] if "b" not in words[1] else words[1])


def test_no_room_for_the_socket(where: Place) -> None:
    tree = new_tree(where, "readonly")
    tree.path.chmod(0o555)
    done = where.run([where.termite("termite-master"), "-secret", str(copy_secret(secret_of(where), where))], tree.path)
    expect_line(done, "termite-master", str(tree.path))
