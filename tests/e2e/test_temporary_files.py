"""/tmp and /var/tmp in jobs are those of a plain build, as far as they may be."""

import os
import shutil
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from termite.engine.errors import Reason
from tests.e2e.cluster import Tree, cluster, embedded, new_tree, processes_running
from tests.e2e.conftest import USERS, MakePlace
from tests.e2e.places import IS_ROOT, Outcome

TRAFFIC_HZ = 100
TRAFFIC_S = 10.0
MOST_OF_A_CORE = 0.01


@pytest.fixture
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield a path in a temporary directory at which nothing is, and which is removed again."""
    top = getattr(request, "param", "/tmp")
    path = f"{top}/termite-e2e-{uuid.uuid4().hex}"
    yield path
    for left in Path(top).glob(f"{Path(path).name}*"):
        shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()


def seen_from(tree: Tree, path: str | Path) -> Path:
    """Return the path as seen from here: the namespaces of the tree may have their own /tmp."""
    return Path(f"/proc/{tree.where.holder}/root{path}") if tree.where.holder else Path(path)


in_both = pytest.mark.parametrize("name", ["/tmp", "/var/tmp"], indirect=True)


def by_user(tree: Tree, path: str | Path, content: str | None = None, mode: int = 0o644) -> Path:
    """Make a file, or a directory if `content` is None, as the user of the tree."""
    made = seen_from(tree, path)
    if content is None:
        made.mkdir()
        mode = 0o755 if mode == 0o644 else mode
    else:
        made.write_text(content)
    made.chmod(mode)
    tree.own(made)
    return made


def left_of(tree: Tree, name: str) -> list[str]:
    """Remove what stands at names that begin with `name`, and return the names."""
    found = sorted(seen_from(tree, name).parent.glob(f"{Path(name).name}*"))
    for path in found:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return [path.name for path in found]


def refusals(tree: Tree) -> int:
    return int(tree.status()["fallbacks"].get(Reason.TEMPORARY_TAKEN, 0))


def as_plain(tree: Tree, makefile: str, name: str, **options: object) -> Outcome:
    """Run make plainly, then with termite and only on workers. Check that nothing differs."""
    outcomes = []
    for kind in ("plain", "termite"):
        sub = tree.subtree(kind)
        sub.write("Makefile", makefile)
        runs = [*([sub.where.termite("termite-make")] if kind == "termite" else ["make"]), "-j4"]
        jobs = tree.jobs()
        done = sub.where.run(runs, sub.path, **options)  # type: ignore[arg-type]  # of Place.run
        found = {p.name: (p.read_bytes(), p.stat().st_mode) for p in sub.path.iterdir() if p.is_file()}
        outcomes.append((done.code, done.stdout, found, left_of(tree, name)))
    assert outcomes[0] == outcomes[1]
    assert tree.jobs() > jobs, "something ran on a worker"
    assert refusals(tree) == 0
    return done


@in_both
def test_a_file_of_a_fixed_name_goes_from_one_recipe_to_the_next(tree: Tree, name: str) -> None:
    makefile = f"all: three\none: ; @umask 077; echo 1 >{name}\ntwo: one ; @cat {name}; echo 2 >>{name}\n"
    makefile += f"three: two ; @cat {name}; cp {name} out; rm {name}\n"
    assert as_plain(tree, makefile, name).stdout == b"1\n1\n2\n"


def test_a_name_of_mktemp_goes_through_a_file_of_the_tree(tree: Tree, name: str) -> None:
    makefile = f"all: two\none: ; @mktemp {name}XXXX >n; echo secret >`cat n`\n"
    makefile += "two: one ; @cat `cat n`; stat -c %a `cat n`; rm `cat n` n\n"
    assert as_plain(tree, makefile, name).stdout == b"secret\n600\n"


@in_both
def test_a_private_name_of_a_local_command_is_not_missing_for_a_script(tree: Tree, name: str) -> None:
    """The name stands in a file, so that no command mentions it."""
    assert tree.termite("sh", "-c", f"test -e {name}-none").code == 1, "the directory is known by now"
    made = f"mktemp {name}XXXX >n; echo secret >`cat n`; mktemp -d {name}XXXX >d; echo in >`cat d`/x"
    assert tree.plain("sh", "-c", made).code == 0
    before = tree.status()
    assert tree.termite("sh", "-c", "cat `cat n`; test -f `cat n`") == Outcome(0, b"secret\n", b"")
    assert tree.termite("sh", "-c", "cat `cat d`/x") == Outcome(0, b"in\n", b"")
    after = tree.status()
    unseen = Reason.UNSEEN_PROGRAM
    assert after["fallbacks"][unseen] - before["fallbacks"].get(unseen, 0) == 2
    assert tree.termite("sh", "-c", "test -e $(cat n)x").code == 1, "another name is missing"
    assert tree.status()["fallbacks"][unseen] == after["fallbacks"][unseen]


def test_an_installation_is_made_checked_and_removed_as_distcheck_does(tree: Tree, name: str) -> None:
    makefile = f"""D = {name}
all: check
install: ; @mkdir -p $D/usr/lib && echo x >$D/usr/lib/libx.so.1 && chmod 755 $D/usr/lib/libx.so.1
links: install ; @cd $D/usr/lib && ln -s libx.so.1 libx.so && ln libx.so.1 libx.so.0
check: links ; @cd $D && find . | sort && cat usr/lib/libx.so && stat -c '%a %h' usr/lib/libx.so.1
\t@rm $D/usr/lib/*; find $D -type f; cd $D && rmdir usr/lib
\t@test -d $D/usr && ! test -e $D/usr/lib && rm -rf $D
"""
    assert b"./usr/lib/libx.so.0\n" in as_plain(tree, makefile, name).stdout


AUTOMAKE = {
    "configure.ac": "AC_INIT([x],[1])\nAM_INIT_AUTOMAKE([foreign])\nAC_PROG_CC\n"
    "AC_CONFIG_FILES([Makefile])\nAC_OUTPUT\n",
    "Makefile.am": "bin_PROGRAMS=p\np_SOURCES=p.c\nTESTS=t.sh\ndist_doc_DATA=README\nEXTRA_DIST=t.sh\n",
    "p.c": "int main(void){return 0;}\n",
    "t.sh": "#!/bin/sh\n./p\n",
    "README": "R\n",
}


@pytest.mark.skipif(not shutil.which("automake"), reason="automake is not installed")
def test_distcheck_of_automake_passes(tree: Tree) -> None:
    for name, content in AUTOMAKE.items():
        tree.write(name, content, 0o755 if name == "t.sh" else 0o644)
    for step in (["autoreconf", "-fi"], ["./configure", "-q"]):
        prepared = tree.plain(*step)
        assert prepared.code == 0, prepared
    jobs = tree.jobs()
    done = tree.make("-s", "distcheck", timeout_s=300)
    assert done.code == 0, done
    assert b"x-1 archives ready for distribution" in done.stdout
    assert tree.jobs() > jobs + 10
    assert not list(seen_from(tree, "/tmp").glob("am-dc-*"))


@pytest.mark.parametrize("variable", ["TMPDIR", "TMP", "TEMP", "TEMPDIR"])
def test_a_directory_for_temporary_files_is_there_if_it_is_at_home(tree: Tree, name: str, variable: str) -> None:
    script = f"stat -c '%a %U %F' ${variable}; ls -A ${variable}; t=`mktemp ${variable}/XXXXXX` && rm $t; echo $?"
    jobs = tree.jobs()
    env = {variable: f"{name}/0"}
    assert tree.termite("sh", "-c", script, env=env).stdout == tree.plain("sh", "-c", script, env=env).stdout == b"1\n"
    by_user(tree, name, mode=0o700)
    by_user(tree, f"{name}/0", mode=0o700)
    by_user(tree, f"{name}/0/private", "of another program", 0o600)
    by_user(tree, f"{name}/0/public", "for all")
    plain = tree.plain("sh", "-c", script, env=env).stdout.replace(b"private\n", b"")
    assert tree.termite("sh", "-c", script, env=env).stdout == plain
    assert plain.startswith(b"700 ") and plain.endswith(b"public\n0\n")
    assert tree.termite("sh", "-c", f"echo left >${variable}/new", env=env) == Outcome(0, b"", b"")
    assert seen_from(tree, f"{name}/0/new").read_text() == "left\n"
    assert tree.jobs() == jobs + 3


@in_both
def test_sources_beside_a_build_directory_are_seen(tree: Tree, name: str) -> None:
    by_user(tree, name)
    by_user(tree, f"{name}/h.h", "#define X 7\n")
    by_user(tree, f"{name}/a.c", '#include "h.h"\nint main(void){return X;}\n')
    jobs = tree.jobs()
    assert tree.termite("cc", "-o", "a", f"{name}/a.c") == Outcome(0, b"", b"")
    assert tree.plain("./a").code == 7
    seen_from(tree, f"{name}/h.h").write_text("#define X 8\n")
    assert tree.termite("cc", "-o", "a", f"{name}/a.c") == Outcome(0, b"", b"")
    assert tree.plain("./a").code == 8
    assert tree.jobs() == jobs + 2


@in_both
def test_a_private_file_is_seen_if_a_command_names_it(tree: Tree, name: str) -> None:
    by_user(tree, name, mode=0o700)
    by_user(tree, f"{name}/named", "1\n", 0o600)
    by_user(tree, f"{name}/other", "2\n", 0o600)
    by_user(tree, f"{name}-file", "3\n", 0o600)
    by_user(tree, f"{name}-other", "4\n", 0o600)
    jobs = tree.jobs()
    script = f"cat {name}/named {name}-file; ls {os.path.dirname(name)}"
    said = tree.termite("sh", "-c", script).stdout.decode().split()
    assert said[:2] == ["1", "3"]
    base = os.path.basename(name)
    assert [found for found in said if found.startswith(base)] == [base, f"{base}-file"]
    assert tree.termite("sh", "-c", "cat $F", env={"F": f"{name}/other"}).stdout == b"2\n"
    assert tree.jobs() == jobs + 2
    script = f"ls -A `dirname {name}/named`"
    assert tree.termite("sh", "-c", script).stdout == b"named\nother\n"
    assert tree.jobs() == jobs + 2, "it lists a private directory, and runs here"


@pytest.mark.parametrize("kind", ["ssh-", ".X0-lock", "krb5cc_"])
def test_credentials_are_not_seen_though_the_environment_names_them(tree: Tree, name: str, kind: str) -> None:
    path = f"{os.path.dirname(name)}/{kind}{uuid.uuid4().hex}"
    by_user(tree, path, "secret\n")
    try:
        jobs = tree.jobs()
        assert tree.termite("sh", "-c", "cat $F", env={"F": path}).code == 1
        assert tree.termite("cat", path).code == 1
        assert tree.jobs() == jobs + 2
    finally:
        seen_from(tree, path).unlink()


@pytest.mark.parametrize(
    ("script", "result"),
    [
        ("echo 2 >>{}; echo ran", "1\n2\n"),
        ("rm {}; echo ran", None),
        ("echo 3 >{}.new && mv {}.new {}; echo ran", "3\n"),
        ("mkfifo {}.fifo; echo ran", "1\n"),
        ("ln -s /etc/passwd {}.link; echo ran", "1\n"),
        ("chmod 640 {}; echo ran", "1\n"),
        ("install -d -m 2755 {}.d; test -g {}.d; echo ran", "1\n"),
    ],
)
def test_a_command_that_changes_anything_else_runs_here(tree: Tree, name: str, script: str, result: str | None) -> None:
    by_user(tree, name, "1\n")
    tree.termite("cat", name)  # it is known to the worker
    before = refusals(tree)
    done = tree.termite("sh", "-c", script.replace("{}", name))
    assert (done.code, done.stdout) == (0, b"ran\n"), done
    assert Reason.TEMPORARY_TAKEN.words.encode() in done.stderr and name.encode() in done.stderr
    assert refusals(tree) == before + 1
    there = seen_from(tree, name)
    assert (there.read_text() if there.exists() else None) == result
    assert not script.startswith("chmod") or stat.S_IMODE(there.stat().st_mode) == 0o640
    left_of(tree, name)


def test_temporary_files_that_a_job_removes_and_sockets_leave_no_trace(tree: Tree, name: str) -> None:
    script = f'mkdir {name}; echo x >{name}/a; rm -r {name}; python3 -c "import socket; '
    script += f"socket.socket(socket.AF_UNIX).bind('{name}-s')\""
    jobs = tree.jobs()
    assert tree.termite("sh", "-c", script) == Outcome(0, b"", b"")
    assert (tree.jobs(), refusals(tree)) == (jobs + 1, refusals(tree))
    assert left_of(tree, name) == []


def test_the_directories_have_their_modes(tree: Tree) -> None:
    script = "stat -c '%a %F' /tmp /var/tmp"
    assert tree.termite("sh", "-c", script) == tree.plain("sh", "-c", script)


@pytest.fixture(params=USERS)
def own_master(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[Callable[..., Tree]]:
    with make_place(request.param) as where:
        yield lambda: new_tree(where)


@contextmanager
def private_master(tree: Tree) -> Iterator[None]:
    """Start a master without shared temporary directories: root says so by the flag."""
    if tree.where.uid == 0:
        with cluster(tree, [tree.where], master_flags=("-tmp", "private")):
            yield
    else:
        with embedded(tree, env={"TERMITE_TMP": "private"}):
            yield


def test_a_private_master_shares_nothing(own_master: Callable[..., Tree], name: str) -> None:
    tree = own_master()
    by_user(tree, name)
    by_user(tree, f"{name}/public", "1")
    with private_master(tree):
        script = f"ls -A {os.path.dirname(name)}; echo x >{name}-new"
        assert tree.termite("sh", "-c", script) == Outcome(0, b"", b"")
        assert not seen_from(tree, f"{name}-new").exists()
        chosen = tree.termite("sh", "-c", "ls -A $TMPDIR; mktemp >/dev/null; echo $?", env={"TMPDIR": name})
        assert chosen == Outcome(0, b"0\n", b"")
        assert tree.jobs() == 2


def test_a_tree_below_tmp_is_built_with_sources_beside_it(own_master: Callable[..., Tree], name: str) -> None:
    tree = own_master()
    by_user(tree, name)
    by_user(tree, f"{name}/src")
    by_user(tree, f"{name}/src/a.c", "int main(void){return 3;}\n")
    by_user(tree, f"{name}/b")
    by_user(tree, f"{name}/b/Makefile", "a: ../src/a.c ; cc -o a ../src/a.c && mktemp -p .. left-XXXX\n")
    build = Tree(tree.where, Path(name) / "b")
    with embedded(build):
        assert build.make().code == 0
        assert build.plain("./a").code == 3
        assert (build.jobs(), refusals(build)) == (1, 0)
        assert list(seen_from(tree, name).glob("left-*"))


@pytest.mark.parametrize("user", USERS)
def test_traffic_of_others_costs_the_master_less_than_a_percent_of_a_core(
    user: str, make_place: MakePlace, capsys: pytest.CaptureFixture[str]
) -> None:
    """Jobs run all the time, so that the master reads all events; the cost is the difference.

    A master with traffic and one without it run at once, if each place has a /tmp of its own.
    """
    with ThreadPoolExecutor(2 if IS_ROOT else 1) as pool:
        quiet_s, busy_s = pool.map(lambda with_traffic: cpu_of_master(make_place, user, with_traffic), (False, True))
    share = (busy_s - quiet_s) / TRAFFIC_S
    with capsys.disabled():
        print(f"\ntraffic of {TRAFFIC_HZ} files/s costs the master {share:.2%} of a core ({quiet_s:.2f} s without it)")
    assert share < MOST_OF_A_CORE


def cpu_of_master(make_place: MakePlace, user: str, with_traffic: bool) -> float:
    """Return the CPU seconds that a new master uses in TRAFFIC_S, with a job in each second."""
    with make_place(user) as where, embedded(new_tree(where)) as tree:
        (pid,) = processes_running(b"\0--socket\0" + os.fsencode(tree.path))
        tree.termite("sh", "-c", 'ls /tmp /var/tmp; rm "$(mktemp)"')
        ended = threading.Event()
        others = threading.Thread(target=make_traffic, args=(seen_from(tree, "/tmp"), ended))
        if with_traffic:
            others.start()
        try:
            began_s, before_s = time.monotonic(), cpu_s(pid)
            for second in range(int(TRAFFIC_S)):
                time.sleep(max(0.0, began_s + second - time.monotonic()))
                assert tree.termite("sh", "-c", "ls /tmp >/dev/null").code == 0
            time.sleep(max(0.0, began_s + TRAFFIC_S - time.monotonic()))
            return cpu_s(pid) - before_s
        finally:
            ended.set()
            if with_traffic:
                others.join()


def make_traffic(directory: Path, ended: threading.Event) -> None:
    """Make and remove files as other programs do: half of them private, half of them public."""
    for count in range(10**9):
        path = directory / f"termite-traffic-{uuid.uuid4().hex}"
        path.touch(mode=0o600 if count % 2 else 0o644)
        path.write_text("x")
        if ended.wait(1 / TRAFFIC_HZ):
            path.unlink()
            return
        path.unlink()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
