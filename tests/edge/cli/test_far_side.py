"""The far side of `termite-ctl add` installs, runs and removes a worker on a host.

A program `ssh` runs it on this machine, in a home of its own. Bundles have small shell scripts in
place of termite.
"""

import argparse
import fcntl
import hashlib
import io
import json
import os
import shutil
import signal
import stat
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from termite.cli.doctor.finding import Finding, Level
from termite.cli.ssh_hosts import bundle_source, far_request, host_worker
from termite.cli.ssh_hosts.bundle_source import Bundle, read_bundle
from termite.cli.ssh_hosts.far_request import MOST_ERRORS_BYTES, ask_host
from termite.cli.ssh_hosts.host_trial import FarmOfHost, TriedWorker
from termite.cli.ssh_hosts.host_worker import Host, add_host, forget_host, upgrade_host
from termite.cli.subcommands.machines.remove import SUBCOMMAND as REMOVE
from termite.cli.subcommands.machines.upgrade import SUBCOMMAND as UPGRADE
from termite.cli.written_files.host_list import AddedHost, HostAddress, changed_hosts, parse_host_address, read_hosts
from termite.engine.errors import UserError
from termite.engine.wire.protocol.fleet_messages import ListedWorker

ADDRESS = HostAddress("me", "alpha", 22)
SECRET = b"0123456789abcdef" * 4
SSH = """\
#!/bin/sh
{ printf '%s\\n' "$@"; env; } >>"$RECORD"
echo "a start file of the shell greets"
for last; do :; done
set -- HOME="$FAR_HOME" PATH="$FAR_PATH" STATE="$FAR_HOME.state" SSH_CONNECTION='10.0.0.5 1 10.0.0.6 22'
exec env -i "$@" sh -c "$last"
"""
WORKER = """\
#!/bin/sh
trap 'exit 0' USR2 TERM
echo "$@" >"$XDG_STATE_HOME.words"
echo "termite-worker: listens on 0.0.0.0:1235"
while :; do sleep 0.05; done
"""
UNFIT_WORKER = """\
#!/bin/sh
echo "termite-worker: there is no /dev/fuse" >&2
echo "termite-worker: as root: modprobe fuse" >&2
exit 100
"""
# It knows what systemd would: the process of the unit, and whether the user's services linger.
SYSTEMCTL = """\
#!/bin/sh
unit=$HOME/.config/systemd/user/termite-added-worker.service
case "$*" in
"--user show-environment" | "--user daemon-reload") ;;
"--user enable --now termite-added-worker.service")
    export $(sed -n 's/^Environment="\\(.*\\)"$/\\1/p' "$unit")
    eval "setsid $(sed -n 's/^ExecStart=//p' "$unit") >>'$HOME/.termite-worker/start.log' 2>&1 </dev/null &"
    echo $! >"$STATE.pid" ;;
"--user is-active termite-added-worker.service")
    kill -0 $(cat "$STATE.pid") 2>/dev/null && echo active || { echo inactive; exit 3; } ;;
"--user kill --kill-who=main --signal="*)
    number=${4#--signal=}; kill -$number $(cat "$STATE.pid") ;;
"--user disable --now termite-added-worker.service") kill $(cat "$STATE.pid") 2>/dev/null ;;
*) echo "unknown: $*" >&2; exit 1 ;;
esac
"""
NO_SYSTEMD = "#!/bin/sh\necho 'Failed to connect to bus' >&2; exit 1\n"
LOGINCTL = """\
#!/bin/sh
case "$*" in
show-user*) [ -e "$STATE.lingers" ] && echo yes || echo no ;;
*enable-linger*) >"$STATE.lingers" ;;
*disable-linger*) rm "$STATE.lingers" ;;
esac
"""


class FarHost:
    """A host whose home is a directory here."""

    def __init__(self, top: Path) -> None:
        self.home, self.programs, self.record = top / "home", top / "programs", top / "record"
        self.home.mkdir()
        self.programs.mkdir()
        self.worker_place = self.home / ".termite-worker"
        self.notes: list[str] = []

    def give(self, name: str, script: str) -> None:
        """Give the host a program."""
        (self.programs / name).write_text(script)
        (self.programs / name).chmod(0o755)

    def ask(self, action: str, secret: bytes = b"", bundle: Path | None = None, **more: object) -> dict[str, object]:
        with bundle.open("rb") if bundle else nullcontext() as file:
            return ask_host(ADDRESS, {"action": action, **more}, self.notes.append, secret=secret, bundle=file)

    def start(self, digest: str) -> dict[str, object]:
        return self.ask(
            "start", SECRET, digest=digest, flags=["-jobs", "2"], owner="me@here", owner_id="mine", name="me@alpha:22"
        )

    def install(self, bundle: Path) -> str:
        digest = hashlib.sha256(bundle.read_bytes()).hexdigest()
        self.ask("install", bundle=bundle, digest=digest)
        return digest


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FarHost]:
    """Yield a host without systemd. A test that fails leaves no worker there."""
    far = FarHost(tmp_path)
    monkeypatch.chdir(tmp_path)
    here = tmp_path / "here"
    here.mkdir()
    (here / "ssh").write_text(SSH)
    (here / "ssh").chmod(0o755)
    for name, value in (
        ("PATH", f"{here}:{os.environ['PATH']}"),
        ("RECORD", str(far.record)),
        ("FAR_HOME", str(far.home)),
        ("FAR_PATH", f"{far.programs}:/usr/bin:/bin"),
    ):
        monkeypatch.setenv(name, value)
    far.give("systemctl", NO_SYSTEMD)
    yield far
    if (far.worker_place / "settings.json").exists():
        far.ask("clean", wait_s=0)


def a_bundle(path: Path, worker: str, more: str = "") -> Path:
    """Pack a bundle with this worker; `more` makes another one of it."""
    doctor = "#!/bin/sh\necho '{\"findings\": []}'\n"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in (("termite-worker", worker), ("termite-ctl", doctor), ("README", more)):
            entry = tarfile.TarInfo(f"termite-9/bin/{name}")
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content.encode()))
    return path


def test_a_worker_is_started_drained_and_removed_with_everything(host: FarHost, tmp_path: Path) -> None:
    facts = host.ask("look")
    assert (facts["has"], facts["peer"], facts["owner_id"], facts["is_running"]) == ([], "10.0.0.5", "", False)
    assert list(host.home.iterdir()) == []  # a look changes nothing
    first = host.install(a_bundle(tmp_path / "first.tar.gz", WORKER))
    assert host.start(first) == {"way": "detached"}
    facts = host.ask("look")
    assert (facts["has"], facts["owner_id"], facts["digest"], facts["is_running"]) == ([first], "mine", first, True)
    place = host.worker_place
    assert stat.S_IMODE((place / "secret.txt").stat().st_mode) == 0o600
    assert (place / "secret.txt").read_bytes() == SECRET
    assert (
        (place / "state.words").read_text().startswith(f"-jobs 2 -secret {place}/secret.txt -cachedir {place}/cache ")
    )
    assert SECRET not in host.record.read_bytes()  # argv and environment of ssh
    with pytest.raises(UserError, match="a worker that was added before runs there"):
        host.start(first)
    second = host.install(a_bundle(tmp_path / "second.tar.gz", WORKER, "another"))
    host.ask("stop", wait_s=60)
    assert not host.ask("look")["is_running"]
    host.start(second)
    host.ask("tidy", digest=second)
    assert host.ask("look")["has"] == [second]
    (place / "cache").mkdir()
    (place / "cache" / "closed").mkdir(mode=0)
    host.ask("clean", wait_s=0)
    assert list(host.home.iterdir()) == []


def test_a_worker_is_a_service_if_the_user_has_a_systemd_that_outlives_him(host: FarHost, tmp_path: Path) -> None:
    host.give("systemctl", SYSTEMCTL)
    host.give("loginctl", LOGINCTL)
    digest = host.install(a_bundle(tmp_path / "bundle.tar.gz", WORKER))
    assert host.start(digest) == {"way": "service"}
    unit = host.home / ".config/systemd/user/termite-added-worker.service"
    own = unit.with_name("termite-worker.service")
    own.write_text("of the user")
    if shutil.which("systemd-analyze"):
        env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
        words = ["systemd-analyze", "--user", "verify", str(unit)]
        verified = subprocess.run(words, capture_output=True, text=True, env=env)
        assert (verified.returncode, "termite-added-worker" in verified.stderr) == (0, False), verified
    assert host.ask("look")["is_running"]
    host.ask("stop", wait_s=60)
    assert not host.ask("look")["is_running"]
    host.start(digest)  # it lingers now, and the host still knows who has let it
    assert (tmp_path / "home.state.lingers").exists()
    host.ask("clean", wait_s=0)
    assert [own.read_text(), *own.parent.iterdir()] == ["of the user", own]
    assert sorted(path.name for path in host.home.iterdir()) == [".config"]
    assert not (tmp_path / "home.state.lingers").exists()


def test_a_service_that_becomes_a_process_is_removed_with_all_that_was_made_for_it(
    host: FarHost, tmp_path: Path
) -> None:
    host.give("systemctl", SYSTEMCTL)
    host.give("loginctl", LOGINCTL)
    digest = host.install(a_bundle(tmp_path / "bundle.tar.gz", WORKER))
    host.start(digest)
    host.ask("stop", wait_s=60)
    host.give("systemctl", NO_SYSTEMD)
    assert host.start(digest) == {"way": "detached"}
    assert not (host.home / ".config/systemd/user/termite-added-worker.service").exists()
    host.ask("clean", wait_s=0)
    assert list(host.home.iterdir()) == [] and not (tmp_path / "home.state.lingers").exists()


def test_a_manager_that_does_not_answer_is_not_taken_for_a_worker_that_has_ended(
    host: FarHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.give("systemctl", SYSTEMCTL)
    host.give("loginctl", LOGINCTL)
    digest = host.install(a_bundle(tmp_path / "bundle.tar.gz", WORKER))
    host.start(digest)
    before = (host.worker_place / "settings.json").read_bytes()
    host.give("systemctl", "#!/bin/sh\nexec sleep 60\n")
    program = far_request.far_program().replace(b"ASK_S = 10.0", b"ASK_S = 0.3")
    monkeypatch.setattr(far_request, "far_program", lambda: program)
    try:
        for action in ("look", "stop", "clean"):
            with pytest.raises(UserError, match="systemctl --user is-active has not answered"):
                host.ask(action, wait_s=0)
    finally:
        host.give("systemctl", SYSTEMCTL)
    assert (host.worker_place / "settings.json").read_bytes() == before
    assert host.ask("look")["is_running"]


def test_only_what_a_worker_has_logged_since_its_start_is_read(host: FarHost, tmp_path: Path) -> None:
    digest = host.install(a_bundle(tmp_path / "bundle.tar.gz", WORKER))
    log = host.worker_place / "worker.log"
    log.write_text("of an earlier worker\n")
    host.start(digest)
    listens = "termite-worker: listens on 0.0.0.0:1235"
    assert host.ask("log") == {"log": [listens]}
    with log.open("a") as file:
        file.write("new\n")
    assert host.ask("log") == {"log": [listens, "new"]}
    log.write_text("rotated\n")
    assert host.ask("log") == {"log": [listens, "rotated"]}


def test_a_worker_that_does_not_start_is_named_with_what_it_says(host: FarHost, tmp_path: Path) -> None:
    digest = host.install(a_bundle(tmp_path / "bundle.tar.gz", UNFIT_WORKER))
    with pytest.raises(UserError) as refused:
        host.start(digest)
    assert refused.value.message == "ssh://me@alpha:22: the worker does not start: there is no /dev/fuse"
    assert refused.value.hint == "as root: modprobe fuse"


@pytest.mark.parametrize("cut", [0, 50, 100])
def test_a_bundle_that_comes_damaged_or_cut_off_is_not_kept(host: FarHost, tmp_path: Path, cut: int) -> None:
    bundle = a_bundle(tmp_path / "bundle.tar.gz", WORKER)
    digest = hashlib.sha256(bundle.read_bytes()).hexdigest()
    content = bundle.read_bytes()
    bundle.write_bytes(content[: len(content) * cut // 100] + b"\0" * (cut == 100))
    with pytest.raises(UserError, match=r"damaged|cannot be unpacked"):
        host.ask("install", bundle=bundle, digest=digest)
    assert list((host.worker_place / "bundles").iterdir()) == []


def test_what_another_has_put_in_the_way_is_refused(host: FarHost, tmp_path: Path) -> None:
    host.worker_place.symlink_to(tmp_path)
    with pytest.raises(UserError, match="is no directory of this user"):
        host.ask("clean", wait_s=0)
    host.worker_place.unlink()
    host.worker_place.mkdir(0o700)
    held = os.open(host.worker_place, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another termite-ctl changes the worker"):
            host.ask("clean", wait_s=0)
    finally:
        os.close(held)


def test_a_file_that_is_no_bundle_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "text.tar.gz").write_text("no archive")
    with tarfile.open(tmp_path / "other.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("gcc-12/README"))
    for name in ("text.tar.gz", "other.tar", "missing"):
        with pytest.raises(UserError, match="is no bundle"):
            read_bundle(tmp_path / name)
    bundle = read_bundle(a_bundle(tmp_path / "termite-9-linux-riscv64.tar.gz", WORKER))
    with bundle.file:
        assert (bundle.release, bundle.machine) == ("9", "riscv64")


def test_an_archive_that_another_program_replaces_is_sent_as_it_was(
    host: FarHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tree = tmp_path / "tree"
    for name in ("bin", "lib"):
        (tree / name).mkdir(parents=True)
    (tree / "pyvenv.cfg").touch()
    (tree / "bin/termite-worker").write_text(WORKER)
    kept = bundle_source._packed(tree, "1")
    bundle = read_bundle(kept)
    with bundle.file as file:
        bundle_source._packed(tree, "2")  # of another program, whose termite has changed
        assert not kept.exists()
        request = {"action": "install", "digest": bundle.digest}
        ask_host(ADDRESS, request, host.notes.append, bundle=file)
    assert host.ask("look")["has"] == [bundle.digest]
    monkeypatch.setattr(bundle_source, "_packed_here", lambda: kept.lstat())
    with pytest.raises(UserError, match="no bundle can be made"):
        bundle_source.find_bundle(None)


def test_an_upgrade_of_all_hosts_goes_on_after_any_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    tried = []

    def upgrade(entry: AddedHost, *_: object) -> None:
        tried.append(entry.address)
        raise [UserError("off"), OSError("a fault"), UserError("off")][len(tried) - 1]

    with changed_hosts() as box:
        for name in "abc":
            box[0] = box[0].with_host(AddedHost(f"ssh://{name}", "farm:1233", "/secret"))
    monkeypatch.setattr(host_worker, "upgrade_host", upgrade)
    monkeypatch.setattr(bundle_source, "find_bundle", lambda _: None)
    with pytest.raises(OSError, match="a fault"):
        UPGRADE.run(argparse.Namespace(hosts=[], bundle=None, wait=1.0))
    assert tried == ["ssh://a", "ssh://b", "ssh://c"]


class Adding:
    """The steps of `add_host` on a host, with a farm where every worker is registered."""

    def __init__(self, host: FarHost, top: Path, patch: pytest.MonkeyPatch) -> None:
        patch.setenv("XDG_STATE_HOME", str(top))
        self.host, self.bundle = host, a_bundle(top / "added.tar.gz", WORKER)
        self.before: list[Callable[[], object]] = []
        self._find = bundle_source.find_bundle
        patch.setattr(host_worker, "check_farm_answers", lambda _: None)
        patch.setattr(host_worker, "find_bundle", self.find_bundle)
        patch.setattr(host_worker, "try_worker_of", self.try_worker)
        patch.setattr(host_worker, "read_farm", lambda *_: FarmOfHost("localhost", 1233, SECRET))
        self.is_registered = [True]

    def find_bundle(self, named: Path | None) -> Bundle:
        """Find the bundle. The test does something before."""
        if self.before:
            self.before.pop()()
        return self._find(named)

    def try_worker(self, farm: FarmOfHost, name: str, limit_s: float) -> TriedWorker | None:
        if not (self.is_registered.pop() if len(self.is_registered) > 1 else self.is_registered[0]):
            return None
        listed = ListedWorker(name, "", 2, 0, 0.0, 0, draining=False)
        return TriedWorker(listed, Finding("", "job", Level.OK, "a job ran in 1 ms"))

    def add(self, url: str) -> None:
        address = parse_host_address(url)
        farm = FarmOfHost("localhost", 1233, SECRET)
        add_host(address, farm, AddedHost(address.text, farm.text, "/secret"), self.bundle, [])

    def upgrade(self, bundle: Path) -> None:
        (entry,) = read_hosts().hosts
        found = read_bundle(bundle)
        with found.file:
            upgrade_host(entry, found, 60.0)

    def refused(self, url: str) -> str:
        with pytest.raises(UserError) as refused:
            self.add(url)
        return refused.value.message

    def name_of_the_worker(self) -> object:
        """Return the name of the worker, which runs, and whose host is the only one of the list."""
        facts = self.host.ask("look")
        assert facts["is_running"]
        (entry,) = read_hosts().hosts
        assert (entry.name, entry.release, entry.flags[:2]) == (facts["name"], "9", ("-coordinator", "10.0.0.5:1233"))
        return facts["name"]


@pytest.fixture
def adding(host: FarHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Adding:
    return Adding(host, tmp_path, monkeypatch)


def test_a_host_that_has_a_worker_is_not_added_again_under_any_address(adding: Adding) -> None:
    adding.add("ssh://alpha")
    assert adding.refused("ssh://alpha") == "ssh://alpha was added already"
    assert "is that of ssh://alpha" in adding.refused("ssh://me@alpha")
    with pytest.raises(UserError, match="is that of ssh://alpha"):
        host_worker.remove_host(parse_host_address("ssh://me@alpha"), 0)
    assert adding.name_of_the_worker() == "alpha"
    forget_host(parse_host_address("ssh://alpha"))
    adding.add("ssh://me@alpha")  # its worker takes the place of the forgotten one
    assert adding.name_of_the_worker() == "me@alpha"


@pytest.mark.parametrize("winner", ["ssh://alpha", "ssh://me@alpha"])
def test_of_two_who_add_a_host_at_the_same_time_one_wins(adding: Adding, winner: str) -> None:
    """The second one comes when the first has seen that there is no worker."""
    loser = "ssh://alpha"
    seen: list[str] = []
    if winner == loser:
        adding.before = [lambda: seen.append(adding.refused(loser))]
        adding.add(winner)
    else:
        adding.before = [lambda: adding.add(winner)]
        seen.append(adding.refused(loser))
    assert "was added already" in seen[0] or "another termite-ctl adds a worker there now" in seen[0]
    assert adding.name_of_the_worker() == winner.removeprefix("ssh://")


def test_a_home_that_another_machine_shares_keeps_its_worker(adding: Adding) -> None:
    adding.add("ssh://a1")
    kept = adding.host.worker_place / "settings.json"
    mine = json.loads(kept.read_text())
    assert mine["node"] == os.uname().nodename
    kept.write_text(json.dumps({**mine, "machine": "another", "node": "a1"}))
    before = kept.read_bytes()
    try:
        assert "has the worker of a1, which shares this home" in adding.refused("ssh://a2")
        with pytest.raises(UserError, match="has the worker of a1"):
            host_worker.remove_host(parse_host_address("ssh://a2"), 0)
        assert kept.read_bytes() == before and [host.name for host in read_hosts().hosts] == ["a1"]
    finally:
        kept.write_text(json.dumps(mine))
    assert adding.name_of_the_worker() == "a1"


def test_an_upgrade_to_the_same_termite_starts_a_worker_again_that_takes_no_jobs(
    adding: Adding, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def pid() -> object:
        return json.loads((adding.host.worker_place / "settings.json").read_text())["pid"]

    adding.add("ssh://alpha")
    first = pid()
    adding.upgrade(adding.bundle)
    assert pid() == first and "has this termite 9 already" in capsys.readouterr().out
    ssh = tmp_path / "here/ssh"
    ssh.write_text(ssh.read_text().replace("10.0.0.5", "10.0.0.7"))  # we have another address now
    adding.is_registered = [True, False]
    adding.upgrade(adding.bundle)
    assert pid() != first and "takes no jobs: it is started again" in capsys.readouterr().out
    (entry,) = read_hosts().hosts
    assert entry.flags == ("-coordinator", "10.0.0.7:1233", "-name", "alpha")
    assert (adding.host.worker_place / "state.words").read_text().startswith("-coordinator 10.0.0.7:1233 -name alpha")


@pytest.mark.parametrize("is_reachable", [True, False])
def test_an_upgrade_that_is_interrupted_while_jobs_end_starts_the_earlier_worker_or_says_that_none_runs(
    adding: Adding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_reachable: bool
) -> None:
    """The worker never ends its jobs. The connection breaks, or the user types Ctrl-C."""
    adding.bundle = a_bundle(tmp_path / "busy.tar.gz", WORKER.replace("exit 0' USR2 TERM", "' USR2"))
    adding.add("ssh://alpha")
    program = far_request.far_program().replace(b"NOTE_S = 5.0", b"NOTE_S = 0.1")
    monkeypatch.setattr(far_request, "far_program", lambda: program)
    ssh = tmp_path / "here/ssh"
    works, lines = ssh.read_text(), []

    def say(_: Host, line: str) -> None:
        lines.append(line)
        if "waits until its jobs" in line and len(lines) == 2:
            if is_reachable:
                raise KeyboardInterrupt
            ssh.write_text("#!/bin/sh\nexit 255\n")
            raise UserError("ssh ended with 255")

    monkeypatch.setattr(Host, "say", say)
    with pytest.raises(KeyboardInterrupt if is_reachable else UserError):
        adding.upgrade(a_bundle(tmp_path / "second.tar.gz", WORKER, "another"))
    if is_reachable:
        assert lines[-1] == "termite 9 runs there again"
        assert adding.name_of_the_worker() == "alpha"
        assert adding.host.ask("look")["has"] == [hashlib.sha256(adding.bundle.read_bytes()).hexdigest()]
    else:
        assert lines[-1].startswith("no worker runs there, or it ends after its jobs: ssh://alpha: ssh ended with 255")
        ssh.write_text(works)


def test_what_is_undone_waits_for_the_other_side_of_a_connection_that_was_cut_off(host: FarHost) -> None:
    host.worker_place.mkdir(0o700)
    held = os.open(host.worker_place, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    end = threading.Timer(0.5, os.close, [held])
    end.start()
    host.ask("clean", wait_s=0, patience_s=30.0)
    end.join()
    assert list(host.home.iterdir()) == []


def test_an_add_that_fails_in_any_way_leaves_nothing(adding: Adding, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (UserError("no"), OSError("a fault"), KeyboardInterrupt()):

        def fail(*_: object, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(host_worker, "try_worker_of", fail)
        with pytest.raises(type(error)):
            adding.add("ssh://alpha")
        assert (list(adding.host.home.iterdir()), read_hosts().hosts) == ([], ())


def test_only_a_host_of_the_list_is_forgotten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with changed_hosts() as box:
        box[0] = box[0].with_host(AddedHost("ssh://alpha", "farm:1233", "/secret"))
    with pytest.raises(UserError, match="ssh://beta was not added"):
        REMOVE.run(argparse.Namespace(host="ssh://beta", forget=True, wait=1.0))
    assert REMOVE.run(argparse.Namespace(host="ssh://alpha", forget=True, wait=1.0)) == 0
    assert read_hosts().hosts == ()


@pytest.mark.parametrize("says", ["exec yes 'a line'", "exec tr '\\0' x </dev/zero", "exec yes 'termite-far-side {}'"])
def test_a_host_that_never_ends_its_answer_takes_no_memory(host: FarHost, tmp_path: Path, says: str) -> None:
    (tmp_path / "here/ssh").write_text(f"#!/bin/sh\n{says}\n")
    with pytest.raises(UserError, match="says more than an answer has"):
        host.ask("look")


def test_only_the_end_of_what_ssh_says_is_kept(host: FarHost, tmp_path: Path) -> None:
    (tmp_path / "here/ssh").write_text(
        "#!/bin/sh\nhead -c 9000000 /dev/zero | tr '\\0' x >&2\necho; echo why >&2; exit 255\n"
    )
    with pytest.raises(UserError) as refused:
        host.ask("look")
    assert refused.value.message.endswith("why") and len(refused.value.message) < 2 * MOST_ERRORS_BYTES


def test_a_connection_that_ssh_keeps_for_others_delays_no_answer(host: FarHost, tmp_path: Path) -> None:
    (tmp_path / "here/ssh").write_text("#!/bin/sh\nsleep 20 >/dev/null &\necho $! >pid\necho why >&2; exit 255\n")
    with pytest.raises(UserError, match="why"):
        host.ask("look")
    os.kill(int(Path("pid").read_text()), signal.SIGKILL)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"owner_id": 1},
        {"cores": -1},
        {"memory_bytes": 10**400},
        {"has": "x"},
        {"peer": None},
        {"kernel": ["x"]},
        {"is_running": "no"},
    ],
)
def test_facts_that_are_none_are_an_error_for_people(
    answer: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = {"architecture": "x", "kernel": "6", "cores": 2, "memory_bytes": 1, "has": [], "peer": "", "owner": ""}
    good |= {"owner_id": "", "name": "", "digest": "", "is_running": False}
    monkeypatch.setattr(host_worker, "ask_host", lambda *_, **__: good)
    assert Host(ADDRESS, "mine").look() == good
    monkeypatch.setattr(host_worker, "ask_host", lambda *_, **__: {**good, **answer} if answer else {})
    with pytest.raises(UserError, match="answers what termite does not know"):
        Host(ADDRESS, "mine").look()
