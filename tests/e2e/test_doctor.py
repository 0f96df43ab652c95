"""The doctor names each planted fault of a machine, with the command that mends it."""

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from termite.engine.wire.protocol import launcher_frames
from tests.e2e.cluster import ancestors, embedded, new_tree, processes_running
from tests.e2e.conftest import USERS, MakePlace, needs_root
from tests.e2e.leftovers import assert_nothing_left
from tests.e2e.places import CHECKOUT, COMMANDS, IS_ROOT, Place
from tests.e2e.waiting import wait_until

FORBID = ["/usr/bin/python3", str(CHECKOUT / "tests" / "native" / "forbid_calls.py")]
WELL, DOUBTFUL, UNFIT = 0, 104, 105


@dataclass(frozen=True)
class Diagnosis:
    """The findings of the doctor, and its exit code."""

    code: int
    findings: list[dict[str, Any]]

    def of(self, about: str, area: str = "") -> dict[str, Any]:
        """Return the worst finding about something, which the doctor must have."""
        order = ("failure", "warning", "ok")
        found = [entry for entry in self.findings if entry["about"] == about and entry["area"].startswith(area)]
        assert found, (about, self.findings)
        return min(found, key=lambda entry: order.index(entry["level"]))

    def expect(self, about: str, level: str, text: str, mend: str, area: str = "") -> None:
        found = self.of(about, area)
        assert (found["level"], text in found["text"], mend in found["mend"]) == (level, True, True), found

    def bad(self) -> set[str]:
        return {entry["about"] for entry in self.findings if entry["level"] != "ok"}


def doctor(
    where: Place,
    *arguments: str,
    within: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Diagnosis:
    """Run the doctor in a place, behind the command `within`."""
    command = [*within, str(COMMANDS / "python"), where.termite("termite-ctl"), "doctor", "-json", *arguments]
    done = where.run(command, cwd or where.base, env=env)
    assert done.code in (WELL, DOUBTFUL, UNFIT), done
    report = json.loads(done.stdout)
    return Diagnosis(done.code, report["findings"])


def here(home: Path) -> Place:
    """Return the place of whoever runs the tests, with a home that has no masters."""
    return Place((), (), os.geteuid(), home, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(home)})


def sh(script: str) -> list[str]:
    """Return a command that runs `script`, and then becomes the words behind it."""
    return ["sh", "-ec", f'{script}\nexec "$@"', "sh"]


def as_user(where: Place, script: str) -> list[str]:
    """Return a command in whose mount namespace root plants a fault for the user of the place."""
    user = ["setpriv", f"--reuid={where.uid}", f"--regid={where.uid}", "--clear-groups"] if where.uid else []
    return ["unshare", "--mount", "--propagation=private", *sh(script), *user]


def rooted(where: Place) -> Place:
    """Return the place for commands of root, who becomes its user later."""
    return Place(where.enter, (), where.uid, where.base, where.env, where.holder)


@contextmanager
def old_master(tree: Path) -> Iterator[None]:
    """Serve `status` in a tree as a master that knows nothing of versions."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tree / ".termite-socket"))
    listener.listen()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(64 * 1024)
            connection.sendall(launcher_frames.frame(launcher_frames.ANSWER, b'{"jobs": {}}'))
            connection.recv(1)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.close()
        (tree / ".termite-socket").unlink()


@pytest.mark.parametrize("kind", USERS)
def test_a_sound_machine_runs_a_job_and_nothing_is_left(make_place: MakePlace, kind: str) -> None:
    with make_place(kind) as where:
        done = where.run([where.termite("termite-ctl"), "doctor"], where.base)
        assert done.code in (WELL, DOUBTFUL), done
        assert b"failure " not in done.stdout and b"  ok       job           a job ran in " in done.stdout, done
        assert done.stderr == b""
        assert_nothing_left(where)


def test_wrong_words_are_no_diagnosis(make_place: MakePlace) -> None:
    with make_place("ordinary") as where:
        for words in (["-coordinator", "a:b:c"], ["-nonsense"]):
            done = where.run([where.termite("termite-ctl"), "doctor", *words], where.base)
            assert (done.code, done.stdout) == (100, b""), done


def test_faults_of_a_user_are_named_all_at_once(make_place: MakePlace) -> None:
    """Plant missing programs, few descriptors, misspelt variables and an open secret."""
    with make_place("ordinary") as where:
        (empty := where.base / "empty").mkdir()
        (secret := where.base / "open-secret.txt").write_text("f" * 64)
        secret.chmod(0o644)
        if IS_ROOT:
            os.chown(secret, where.uid, where.uid)
        env = {
            "TERMITE_NATIVE": str(empty),
            "TERMITE_LOCL": "never",
            "TERMITE_TMP": "shred",
            "TERMITE_SHORT": "abc",
        }
        found = doctor(where, "-secret", str(secret), env=env, within=["prlimit", "--nofile=100:100"])
    assert found.code == UNFIT
    found.expect("programs", "failure", f"is not in {empty}", "pip install")
    found.expect("nofile", "failure", "may open 100 files", "prlimit --pid $$ --nofile=65536")
    found.expect("secret", "failure", "others can read the secret", f"chmod 0600 {secret}")
    named = {(entry["text"].split()[0], entry["mend"]) for entry in found.findings if entry["about"] == "variables"}
    assert named == {
        ("TERMITE_LOCL", "unset TERMITE_LOCL; export TERMITE_LOCAL=never"),
        ("TERMITE_TMP=shred", "export TERMITE_TMP=shared"),
        ("TERMITE_SHORT=abc", "export TERMITE_SHORT=auto"),
    }


def test_a_namespace_without_namespaces_and_watches_is_named(tmp_path: Path) -> None:
    script = (
        "cd /proc/sys/user; echo 0 >max_user_namespaces; echo 100 >max_inotify_watches; echo 0 >max_inotify_instances; "
        "cd /"
    )
    found = doctor(here(tmp_path), within=["unshare", "--user", "--map-root-user", *sh(script)])
    assert found.code == UNFIT
    found.expect("namespaces", "failure", "user.max_user_namespaces = 0", "sysctl -w user.max_user_namespaces=10000")
    found.expect("watches", "warning", "100 directories", "sysctl -w user.max_inotify_watches=524288")
    found.expect("instances", "failure", "none is left", "sysctl -w user.max_inotify_instances=1024")


def test_a_master_of_another_version_is_named(tmp_path: Path) -> None:
    with old_master(tmp_path):
        found = doctor(here(tmp_path), cwd=tmp_path)
    found.expect("master", "warning", "an older version", f"cd {tmp_path} && termite-ctl shutdown")


CONTAINERS: dict[str, tuple[Callable[[], list[str]], str, str, str, str]] = {
    "host name": (lambda: [*FORBID, "EPERM", "sethostname"], "host-name", "warning", "host name", "seccomp profile"),
    "unshare": (lambda: [*FORBID, "ENOSYS", "unshare"], "sandbox", "failure", "its seccomp or security", "namespaces"),
    "mount": (lambda: [*FORBID, "EPERM", "mount"], "sandbox", "failure", "cannot make a sandbox", "namespaces"),
}


@pytest.mark.parametrize("fault", CONTAINERS)
def test_a_container_that_forbids_a_call_is_named(make_place: MakePlace, fault: str) -> None:
    within, about, level, text, mend = CONTAINERS[fault]
    with make_place("ordinary") as where:
        found = doctor(where, within=within())
    found.expect(about, level, text, mend)
    if level == "warning":  # a forbidden host name is no reason to fail a job
        assert found.of("job")["level"] == "ok"
    else:
        assert found.code == UNFIT


@needs_root
def test_root_without_the_right_to_mount_is_named(make_place: MakePlace) -> None:
    with make_place("root") as where:
        found = doctor(where, within=["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"])
    assert found.code == UNFIT
    found.expect("sandbox", "failure", "cannot make a mount namespace", "namespaces")


@needs_root
@pytest.mark.parametrize(
    ("kind", "text", "mend"),
    [
        ("no-fuse", "there is no /dev/fuse", "modprobe fuse"),
        ("closed-fuse", "may not be opened", "chmod 0666 /dev/fuse"),
    ],
)
def test_a_fuse_device_that_cannot_be_used_is_named(make_place: MakePlace, kind: str, text: str, mend: str) -> None:
    with make_place(kind) as where:
        found = doctor(where)
    assert found.code == UNFIT
    found.expect("fuse", "failure", text, mend)


@needs_root
def test_full_disks_and_foreign_directories_are_named_all_at_once(make_place: MakePlace) -> None:
    """Plant a full disk, one without inodes, a foreign directory, no overlay, few processes."""
    with make_place("ordinary") as where:
        base = where.base
        for name in ("scratch", "cache/termite", "state/termite"):
            (base / name).mkdir(parents=True)
        kernel = os.uname().release
        script = f"""
            mount -t tmpfs -o size=64k,mode=1777 full {base}/scratch
            head -c 64k /dev/zero >{base}/scratch/full || true
            mount -t tmpfs -o nr_inodes=20,mode=755,uid={where.uid} few {base}/cache
            mkdir {base}/cache/termite; chown {where.uid} {base}/cache/termite
            chown 12345 {base}/state/termite
            grep -v overlay /proc/filesystems >{base}/filesystems
            mount --bind {base}/filesystems /proc/filesystems
            mkdir {base}/lib; mount -t tmpfs lib {base}/lib; mkdir {base}/lib/upper {base}/lib/work
            mount -t overlay -o lowerdir=/usr/lib,upperdir={base}/lib/upper,workdir={base}/lib/work lib /usr/lib
            mkdir -p /usr/lib/modules/{kernel}; touch /usr/lib/modules/{kernel}/modules.builtin
        """
        env = {f"XDG_{name.upper()}_HOME": f"{base}/{name}" for name in ("cache", "state")} | {
            "TMPDIR": f"{base}/scratch"
        }
        found = doctor(rooted(where), within=[*as_user(where, script), "prlimit", "--nproc=60"], env=env)
    assert found.code == UNFIT
    found.expect("scratch", "failure", "0 MiB free", f"remove files from {base}/scratch")
    found.expect("cache-inodes", "failure", "inodes free", f"rm -rf {base}/cache/termite/cas")
    found.expect("state", "warning", "belongs to user 12345", f"chown -R {where.uid} {base}/state/termite")
    found.expect("overlay", "failure", "no overlayfs", "modprobe overlay")
    found.expect("nproc", "failure", "limit 60", "--nproc=32768")


def test_a_master_that_stands_still_is_named(make_place: MakePlace) -> None:
    with make_place("ordinary") as where, embedded(new_tree(where)) as tree:
        pid = tree.status()["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            found = doctor(where)
        finally:
            os.kill(pid, signal.SIGCONT)
        found.expect("master", "warning", "does not answer", f"kill {pid}")


def test_ctrl_c_ends_the_doctor_amid_its_job_and_nothing_is_left(make_place: MakePlace) -> None:
    with make_place("ordinary") as where:
        process = where.start([where.termite("termite-ctl"), "doctor"], where.base)
        assert process.stdout is not None
        for line in process.stdout:
            if b"  ok       variables " in line:  # the job comes next
                break
        wait_until(lambda: bool(mirrors_below(process.pid)), "the doctor's worker has a mirror")
        mirrors = mirrors_below(process.pid)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
        assert (process.returncode, stderr) == (-signal.SIGINT, b"")
        assert not any(Path(f"/proc/{mirror}").exists() for mirror in mirrors)
        assert_nothing_left(where)


def mirrors_below(pid: int) -> list[int]:
    """Return the mirror processes that a process has started."""
    mirrors = []
    for mirror in processes_running(b"termite.fuse.mirror"):
        with suppress(FileNotFoundError):  # it has ended meanwhile
            mirrors += [mirror] if pid in ancestors(mirror) else []
    return mirrors
