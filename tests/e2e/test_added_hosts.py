"""Workers are added over ssh, replaced and removed, through a real sshd on another machine.

The tests follow each other: the first ones add nothing, and later ones use what was added.
"""

import io
import json
import os
import re
import shlex
import signal
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from termite import __version__
from termite.engine.wire.protocol.messages import PROTOCOL
from tests.e2e.cluster import Cluster, cluster, copy_secret, new_tree
from tests.e2e.conftest import MakePlace, needs_root
from tests.e2e.leftovers import assert_nothing_left
from tests.e2e.places import Outcome
from tests.e2e.sshd import PORT, SSHD, SshHost, sshd
from tests.e2e.terminals import on_terminal
from tests.e2e.test_hosts import bridged
from tests.e2e.waiting import wait_until

pytestmark = [
    needs_root,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not Path(SSHD).exists(), reason="sshd is not installed: sh tools/setup.sh tests"),
]
LOCAL = {"TERMITE_LOCAL": "never"}
MESSAGES = "termite/engine/wire/protocol/messages.py"
# What is said of a host, what makes it so in its namespace, and the mount that does it.
FAULTS = [
    ("there is no /usr/bin/python3.11", "touch /run/plain; mount --bind /run/plain {0}", "/usr/bin/python3.11"),
    ("/dev/fuse is not a device", "touch /run/plain; mount --bind /run/plain {0}", "/dev/fuse"),
    ("is full", "cp -a {0}/.ssh /run; mount -t tmpfs -o mode=700,size=9m tmpfs {0}; cp -a /run/.ssh {0}", "{home}"),
]


@dataclass
class Network:
    """A user's machine with coordinator and master, and a machine of root. Both run sshd."""

    farm: Cluster
    mine: SshHost
    other: SshHost

    def ctl(self, *words: str) -> Outcome:
        """Run termite-ctl as the user."""
        return self.farm.tree.ctl(*words)

    def add(self, *words: str) -> Outcome:
        """Add root's machine to the user's farm."""
        flags = ("-coordinator", self.farm.address, "-secret", str(self.farm.secret))
        return self.ctl("add", self.other.url, *flags, *words)

    def bundle(self) -> Path:
        """Return the archive that termite-ctl has made for the user."""
        (bundle,) = (self.mine.home / ".cache/termite/bundles").glob("*.tar.gz")
        return bundle


@pytest.fixture(scope="module")
def network(make_place: MakePlace) -> Iterator[Network]:
    """Yield both machines, which trust nobody yet."""
    with ExitStack() as stack:
        mine, other = (stack.enter_context(make_place(kind, network=True)) for kind in ("ordinary", "root"))
        addresses = stack.enter_context(bridged([mine, other]))
        hosts = [stack.enter_context(sshd(*pair)) for pair in zip((mine, other), addresses, strict=True)]
        farm = stack.enter_context(cluster(new_tree(mine), [], host=addresses[0]))
        for host in hosts:
            stack.callback(end_worker, host)
        yield Network(farm, *hosts)


def end_worker(host: SshHost) -> None:
    """End the worker that a test has left there because it has failed."""
    try:
        settings = json.loads((directory_of(host) / "settings.json").read_text())
        os.kill(settings["pid"], signal.SIGTERM)
    except (OSError, KeyError):
        return


def said(outcome: Outcome) -> str:
    return (outcome.stdout + outcome.stderr).decode()


def directory_of(host: SshHost) -> Path:
    return host.home / ".termite-worker"


def within(host: SshHost, script: str) -> None:
    """Run a script as root in the namespaces of a host."""
    subprocess.run([*host.where.enter, "--", "sh", "-ec", script], check=True)


def other_bundle(bundle: Path, path: Path, protocol: int) -> Path:
    """Make a bundle with other bytes, which speaks this protocol."""
    with tarfile.open(bundle) as old, tarfile.open(path, "w") as new:
        for entry in old:
            file = old.extractfile(entry) if entry.isreg() else None
            content = file.read() if file else b""
            if protocol != PROTOCOL and "/wire/protocol/__pycache__/messages." in entry.name:
                continue  # Python would use it in place of the source
            if entry.name.endswith(MESSAGES):
                content = content.replace(f"\nPROTOCOL = {PROTOCOL}".encode(), f"\nPROTOCOL = {protocol}".encode())
                entry.size = len(content)
            new.addfile(entry, io.BytesIO(content))
    path.chmod(0o644)
    return path


def test_a_host_that_lets_nobody_in_is_named_with_the_command_that_helps(network: Network) -> None:
    words = f"-p {PORT} root@10.77.0.2"
    refused = network.add()
    assert refused.code == 100 and f"its host key is not known\ntermite-ctl: ssh {words}, and" in said(refused)
    network.other.is_known_to(network.mine.where)
    refused = network.add()
    assert (
        refused.code == 100
        and f"without a password, which termite never asks for\ntermite-ctl: ssh-copy-id {words}" in said(refused)
    )
    network.other.trusts(network.mine.where)
    assert not directory_of(network.other).exists()
    assert said(network.ctl("upgrade")) == "termite-ctl: no host was added\ntermite-ctl: termite-ctl add does it\n"


def test_a_host_that_cannot_run_a_worker_is_named_with_its_fault_and_keeps_nothing(network: Network) -> None:
    for words, script, mounted in FAULTS:
        place = mounted.format(home=network.other.home)
        within(network.other, script.format(place))
        try:
            refused = network.add("-jobs", "2")
        finally:
            within(network.other, f"umount {place}")
        assert refused.code == 100 and words in said(refused), (words, refused)
        assert not directory_of(network.other).exists(), words
    assert "was not added" in said(network.ctl("remove", network.other.url))


def test_a_user_adds_a_host_and_its_worker_takes_jobs_and_drains(network: Network) -> None:
    other, tree = network.other, network.farm.tree
    added = network.add("-jobs", "2")
    assert added.code == 0, added
    for words in ("takes jobs in 2 slots: ", " of memory, x86_64, Linux ", "a job ran in", "ends when that machine"):
        assert words in said(added)
    secret = network.farm.secret.read_bytes().strip()
    top = directory_of(other)
    with_secret = [path.name for path in top.rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert (with_secret, stat.S_IMODE((top / "secret.txt").stat().st_mode)) == (["secret.txt"], 0o600)
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                assert secret not in (process / name).read_bytes()
            except OSError:
                continue
    assert "was added already" in said(network.add())
    assert tree.termite("sh", "-c", "id -u", env=LOCAL) == Outcome(0, b"%d\n" % network.mine.where.uid, b"")
    assert network.ctl("drain", other.url).code == 0
    wait_until(lambda: tree.status()["drained"] == [other.url[6:]], "the master knows that it drains")
    assert tree.termite("sh", "-c", "id -u", env=LOCAL).code == 103
    assert network.ctl("undrain", other.url).code == 0
    wait_until(lambda: tree.status()["drained"] == [], "the master knows that it takes jobs")
    assert tree.termite("sh", "-c", "id -u", env=LOCAL).code == 0


def test_commands_that_list_things_show_an_added_host(network: Network) -> None:
    url, address = network.other.url, network.farm.address
    assert [url, __version__, address] in [line.split() for line in said(network.ctl("ls")).splitlines()]
    kept = network.mine.home / ".local/state/termite/hosts.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert network.farm.secret.read_bytes().strip() not in kept.read_bytes()


def test_an_upgrade_waits_for_a_running_job_and_replaces_the_bundle(network: Network) -> None:
    tree, top = network.farm.tree, directory_of(network.other)
    bundle = other_bundle(network.bundle(), network.mine.home / "other.tar", PROTOCOL)
    words = [tree.where.termite("termite"), "sh", "-c", "echo began; read -r word; echo $word >made"]
    job = tree.where.start(words, tree.path, env=LOCAL, stdin=subprocess.PIPE)
    assert job.stdout is not None and job.stdout.readline() == b"began\n"
    before = [path.name for path in (top / "bundles").iterdir()]
    words = [tree.where.termite("termite-ctl"), "upgrade", network.other.url, "-bundle", str(bundle)]
    upgrade = tree.where.start(words, tree.path)
    name = network.other.url[6:]
    try:
        wait_until(lambda: tree.status()["drained"] == [name], "the worker waits for the job", limit_s=90)
        assert upgrade.poll() is None and job.stdin is not None
        with job.stdin:
            job.stdin.write(b"done\n")
        output = upgrade.communicate(timeout=60)
    finally:
        upgrade.kill()
    done = Outcome(upgrade.returncode, *output)
    assert done.code == 0 and "takes jobs in 2 slots" in said(done), done
    assert (job.wait(10), (tree.path / "made").read_text()) == (0, "done\n")
    assert tree.status()["jobs"]["retried"] == 0
    after = [path.name for path in (top / "bundles").iterdir()]
    assert len(before) == len(after) == 1 and before != after
    assert tree.termite("sh", "-c", "id -u", env=LOCAL).code == 0
    assert f"has this termite {__version__} already" in said(network.ctl("upgrade", "-bundle", str(bundle)))


def test_a_refused_version_is_named_on_both_sides_and_the_earlier_one_runs_again(network: Network) -> None:
    bundle = other_bundle(network.bundle(), network.mine.home / "newer.tar", PROTOCOL + 1)
    refused = network.ctl("upgrade", "-bundle", str(bundle))
    named = f"the coordinator speaks protocol {PROTOCOL}, this daemon speaks {PROTOCOL + 1}"
    assert refused.code == 100 and named in said(refused) and "runs there again" in said(refused), refused
    assert (
        "peer-refused" in network.farm.coordinator.text() and "reason=other-protocol" in network.farm.coordinator.text()
    )
    assert network.farm.tree.termite("sh", "-c", "id -u", env=LOCAL).code == 0


def test_root_adds_a_host_of_a_user_in_the_other_direction(network: Network) -> None:
    mine, other, where = network.mine, network.other, network.other.where
    mine.trusts(where)
    mine.is_known_to(where)
    bundle = other_bundle(network.bundle(), other.home / "same.tar", PROTOCOL)
    flags = ("-coordinator", network.farm.address, "-secret", str(copy_secret(network.farm.secret, where)))
    added = where.run(
        [where.termite("termite-ctl"), "add", mine.url, *flags, "-bundle", str(bundle), "-jobs", "1"], where.base
    )
    assert added.code == 0 and "takes jobs in 1 slots" in said(added), added
    assert stat.S_IMODE(directory_of(mine).stat().st_mode) == 0o700
    stolen = network.ctl("remove", mine.url)  # by the user of that machine, who has not added it
    assert stolen.code == 100, stolen
    wait_until(lambda: len(network.farm.tree.status()["known_workers"]) == 2, "the master knows both")
    removed = where.run([where.termite("termite-ctl"), "remove", mine.url], where.base)
    assert removed.code == 0 and not directory_of(mine).exists(), removed


def test_top_works_over_ssh(network: Network) -> None:
    """Root, at the other machine, looks at the user's master. The terminal changes its size."""
    mine, other, tree = network.mine, network.other, network.farm.tree
    command = f"cd {shlex.quote(str(tree.path))} && exec {tree.where.word('termite-ctl')} top"
    words = ["ssh", "-tt", "-p", str(mine.port), f"{mine.user}@{mine.address}", command]
    with on_terminal(other.where, words, other.where.base) as terminal:
        terminal.read_until(b"\x1b[?1049h")
        screen = terminal.read_until(b"\x1b[33;1H").decode()
        assert str(tree.path) in screen and "0 running, 0 waiting" in screen, screen
        assert other.url[6:] in screen and "[running]   waiting" in screen, screen
        terminal.resize(12, 50)
        terminal.read_until(b"\x1b[1;1H")
        smaller = terminal.read_until(b"\x1b[12;1H").decode()
        rows = re.findall(r"\x1b\[\d+;1H((?:(?!\x1b\[\d+;1H).)*)", f"\x1b[1;1H{smaller}", re.DOTALL)
        assert [len(re.sub(r"\x1b\[\d*m", "", row)) for row in rows] == [50] * 11, rows
        terminal.type(b"?")
        terminal.read_until(b"mark another job")
        terminal.type(b"q")
        code, rest = terminal.finish()
    assert code == 0 and b"\x1b[?1049l" in rest and b"\x1b[13;1H" not in rest, rest


def test_nothing_is_left_on_a_host_that_was_removed(network: Network) -> None:
    other = network.other
    settings = (directory_of(other) / "settings.json").read_text()
    removed = network.ctl("remove", other.url)
    # Before it, a line may say that it waits until jobs have ended.
    assert said(removed).endswith(f"{other.url} is a worker no more, and nothing is left there\n"), (removed, settings)
    assert not directory_of(other).exists()
    # The two last ones are of the test, and the first one has root's own list of added hosts.
    assert sorted(path.name for path in other.home.iterdir()) == [".local", ".ssh", "same.tar"]
    assert [path.name for path in other.home.glob(".local/state/termite/*.json")] == ["hosts.json"]
    assert_nothing_left(other.where)
    assert other.url not in said(network.ctl("ls"))
