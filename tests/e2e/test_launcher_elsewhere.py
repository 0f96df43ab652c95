"""A launcher that sees other files or users than its master runs its commands itself."""

import shlex
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from termite.engine.errors import Reason
from tests.e2e.cluster import Tree, embedded, new_tree
from tests.e2e.conftest import needs_root
from tests.e2e.places import COMMANDS, Outcome, Place

# Each script makes a place in which some path is another file, and runs $1 there. The directory
# has a file `f` with the word "right".
BOUND = 'mount --bind sub box/sub && cd box/sub && exec sh -c "$1"'
NEW_ROOT = 'mkdir -p root && mount --rbind / root && cd sub && exec chroot "$OLDPWD/root" sh -c "cd $PWD && $1"'
USER_AND_MOUNTS = ["unshare", "-Urm", "--propagation", "private", "sh", "-c"]
SHOWN = "--bind / / --dev /dev --proc /proc"
WAYS = {
    "a bind mount": ([*USER_AND_MOUNTS, BOUND], Reason.OTHER_ROOT),
    "another root with the tree at the same path": ([*USER_AND_MOUNTS, NEW_ROOT], Reason.OTHER_ROOT),
    "a user namespace": (["unshare", "-Ur", "sh", "-c", 'cd sub && exec sh -c "$1"'], Reason.OTHER_USER),
    "another host name": (
        ["unshare", "-Uru", "sh", "-c", 'hostname elsewhere && cd sub && exec sh -c "$1"'],
        Reason.OTHER_USER,
    ),
    "another kind of machine": (["linux32", "sh", "-c", 'cd sub && exec sh -c "$1"'], Reason.OTHER_HOST),
    "bubblewrap": (
        ["sh", "-c", f'exec bwrap {SHOWN} --bind sub "$PWD/box/sub" --chdir "$PWD/box/sub" sh -c "$1"'],
        Reason.OTHER_ROOT,
    ),
}
OTHER_GROUP = 61003
LAUNCHER = shlex.quote(str(COMMANDS / "termite"))


@pytest.fixture
def there(tree: Tree) -> Tree:
    """Return a tree with a file that a mount can cover."""
    tree.write("sub/f", "right\n")
    tree.write("box/sub/f", "WRONG\n")
    return tree


@pytest.mark.attack
@pytest.mark.parametrize(("way", "reason"), WAYS.values(), ids=WAYS)
def test_its_commands_run_where_it_is_and_that_is_said_once(there: Tree, way: list[str], reason: Reason) -> None:
    if "bwrap" in way[-1] and not shutil.which("bwrap"):
        pytest.skip("bubblewrap is not installed (apt-get install bubblewrap)")
    script = "{0} cat f; {0} sh -c 'uname -nm >made; cat made'; {0} cat f"
    plain = there.plain(*way, "sh", script.format("env"))
    assert plain.stdout.splitlines()[::2] == [b"right", b"right"], plain
    jobs = there.jobs()
    assert there.make("-f", "/dev/null").code == 2, "a build begins, in which nothing was said yet"
    done = there.plain(*way, "sh", script.format(LAUNCHER))
    assert done == Outcome(0, plain.stdout, f"termite: 1 command runs on this machine: {reason.words}\n".encode())
    assert there.jobs() == jobs
    assert there.status()["fallbacks"][reason] >= 3


@pytest.mark.attack
@needs_root
def test_a_mount_namespace_alone_is_elsewhere(there: Tree) -> None:
    outer, become = there.where.enter, there.where.become
    enter = [*outer, f"--wdns={there.path}", "--", "unshare", "--mount", "--propagation", "private"]
    inner = shlex.join([*become, str(COMMANDS / "termite"), "cat", "f"])
    done = subprocess.run([*enter, "sh", "-c", BOUND, "sh", inner], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"right\n"), done


@pytest.mark.attack
@needs_root
@pytest.mark.parametrize(
    ("enter", "reason"),
    [
        (["setpriv", f"--regid={OTHER_GROUP}", "--clear-groups"], Reason.OTHER_USER),
        (["unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh"], Reason.OTHER_HOST),
    ],
    ids=["another group", "another host name"],
)
def test_what_only_root_can_change_is_elsewhere(there: Tree, enter: list[str], reason: Reason) -> None:
    user = [] if "--regid" in enter[1] else there.where.become
    if "--regid" in enter[1]:
        enter = [*enter, f"--reuid={there.where.uid}"]
        there.path.chmod(0o777)
    script = ["sh", "-c", "touch made; stat -c %g made; uname -n; rm -f made"]
    outer = [*there.where.enter, f"--wdns={there.path}", "--", *enter, *user]
    plain, done = (
        subprocess.run([*outer, *words, *script], env=there.where.env, capture_output=True, check=False, timeout=60)
        for words in ((), (str(COMMANDS / "termite"),))
    )
    assert done.stdout == plain.stdout
    assert done.stderr.startswith(f"termite: 1 command runs on this machine: {reason.words}".encode()), done


@pytest.mark.attack
@needs_root
def test_a_chroot_is_elsewhere(there: Tree) -> None:
    """A chroot has no mount of its own: its root lies on the same file system as the master's."""
    enter = [*there.where.enter, f"--wdns={there.path}", "--"]
    there.mkdir("root/bin")
    shutil.copy(
        "/bin/busybox" if shutil.which("busybox") else COMMANDS / "termite", there.path / "root" / "bin" / "termite"
    )
    shutil.copy(COMMANDS / "termite", there.path / "root" / "bin" / "termite")
    jobs = there.jobs()
    # The socket is reached through a directory that was opened outside, as through a bind mount.
    script = f'exec 9<{shlex.quote(str(there.path.parent))}; TERMITE_SOCKET=/proc/self/fd/9/.termite-socket exec "$@"'
    command = ["chroot", "root", "/bin/termite", "--exe=/bin/termite", "--", "termite", "--version"]
    done = subprocess.run([*enter, "sh", "-c", script, "sh", *command], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout[:8]) == (0, b"termite "), done
    assert there.jobs() == jobs


@pytest.mark.attack
@needs_root
def test_a_directory_that_a_later_mount_covers_is_elsewhere(there: Tree) -> None:
    enter = [*there.where.enter, "--"]
    covered = there.path / "sub"
    script = f"echo started; read go; {LAUNCHER} cat f"
    with there.where.start(["sh", "-c", script], covered, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n", "it has its working directory"
        subprocess.run([*enter, "mount", "-t", "tmpfs", "tmpfs", covered], check=True)
        try:
            stdout, stderr = process.communicate(b"go\n", timeout=60)
        finally:
            subprocess.run([*enter, "umount", covered], check=True)
    assert (process.returncode, stdout) == (0, b"right\n"), stderr
    assert Reason.OTHER_DIRECTORY.words.encode() in stderr


def test_a_directory_by_another_name_is_no_other_directory(there: Tree) -> None:
    (there.path / "link").symlink_to("sub")
    jobs = there.jobs()
    done = there.plain("sh", "-c", f"cd link && {LAUNCHER} cat f")
    assert done == Outcome(0, b"right\n", b"")
    assert there.jobs() == jobs + 1


def test_where_local_is_forbidden_it_is_an_error(there: Tree) -> None:
    way, reason = WAYS["a bind mount"]
    done = there.plain(*way, "sh", f"{LAUNCHER} cat f", env={"TERMITE_LOCAL": "never"})
    line = f"termite: {reason.words}; TERMITE_LOCAL=never forbids running the command on this machine\n"
    assert done == Outcome(103, b"", line.encode())


def test_a_front_end_there_builds_plainly_after_one_line(there: Tree) -> None:
    there.write("sub/Makefile", "all: ; @cat f; cat f\n")
    way, reason = WAYS["a bind mount"]
    make = shlex.quote(str(COMMANDS / "termite-make"))
    jobs = there.jobs()
    done = there.plain(*way, "sh", make)
    assert (done.code, done.stdout) == (0, b"right\nright\n"), done
    assert done.stderr.count(b"termite") == 2
    assert done.stderr.startswith(f"termite: started without workers: {reason.words} (".encode())
    assert there.plain(*way, "sh", make, env={"TERMITE_LOCAL": "never"}).code == 103
    assert there.jobs() == jobs


def test_termite_ctl_there_says_so(there: Tree) -> None:
    way, reason = WAYS["a bind mount"]
    ctl = shlex.quote(str(COMMANDS / "termite-ctl"))
    said = there.plain(*way, "sh", f"{ctl} why gcc -c x.c; {ctl} status | grep ^elsewhere").stdout.decode().splitlines()
    assert said[2:4] == ["place      local, whatever a rule says", f"reason     {reason.words}"]
    assert said[4].startswith(f"elsewhere termite-ctl was {reason.words}")
    started = there.plain(*way, "sh", f"{ctl} start {shlex.quote(there.status()['root'])}")
    assert started.code == 100, started
    assert reason.words.encode() in started.stderr
    assert b"elsewhere" not in there.ctl("status").stdout


@pytest.fixture
def own_tree(user: Place) -> Iterator[Tree]:
    """Yield a tree with a master and rules of its own."""
    with embedded(new_tree(user)) as tree:
        yield tree


def test_a_make_in_a_user_namespace_below_a_build_runs_there(own_tree: Tree) -> None:
    rules = '[{"Regexp": "make", "Local": true, "Recurse": true}]'
    own_tree.write(".termite-localrc", rules)
    own_tree.write(
        "Makefile", "all: far near\nfar: ; @id -u >far\nnear: ; @unshare -Ur $(MAKE) -s inner\ninner: ; @id -u >near\n"
    )
    done = own_tree.make("-s")
    assert done.code == 0, done
    uids = [(own_tree.path / name).read_text() for name in ("far", "near")]
    assert uids == [f"{own_tree.where.uid}\n", "0\n"]
    assert done.stderr.count(f"termite: 1 command runs on this machine: {Reason.OTHER_USER.words}".encode()) == 1, done
    assert f"1 not run by a worker: {Reason.OTHER_USER.words}".encode() in done.stderr


@needs_root
def test_a_master_in_a_namespace_serves_what_is_there(user: Place) -> None:
    """A build tool that is started in a namespace of its own takes its master along."""
    tree = new_tree(user)
    tree.write("Makefile", "all: ; @cat /etc/hostname; touch made\n")
    tree.write("hostname", "another\n")
    ctl, make = (shlex.quote(str(COMMANDS / name)) for name in ("termite-ctl", "termite-make"))
    builds = shlex.join([*user.become, "sh", "-c", f"{make} -s; {ctl} status | grep ^jobs; {ctl} shutdown"])
    script = f"mount --bind hostname /etc/hostname && exec {builds}"
    enter = [*user.enter, f"--wdns={tree.path}", "--", "unshare", "--mount", "--propagation", "private"]
    env = {**user.env, "TERMITE_SHORT": "0"}
    done = subprocess.run([*enter, "sh", "-c", script], env=env, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done
    assert done.stdout.startswith(b"another\njobs      1 "), done
