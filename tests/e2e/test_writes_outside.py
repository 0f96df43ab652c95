"""A command that writes outside the tree has the effects of a local one, because it runs here.

Each script runs once plainly and once through termite, from the same state of the same directories.
The directory `out` stands beside the tree. Jobs may read it.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from termite.engine.errors import Reason
from tests.e2e.cluster import Tree, embedded, new_tree
from tests.e2e.conftest import MakePlace
from tests.e2e.places import IS_ROOT, Outcome
from tests.e2e.snapshot import snapshot

LIMIT_S = 60
OLD_S = 1_000_000_000

# $O is the directory outside. It has `file`, `other`, the symlink `link` and `dir/below`.
WRITES = {
    "makes a file": "echo new >$O/made",
    "makes an empty file": ": >$O/made",
    "overwrites": "echo changed >$O/file",
    "appends": "echo more >>$O/file",
    "truncates": ": >$O/file",
    "writes in place": "printf X | dd of=$O/file conv=notrunc status=none",
    "opens for writing and changes nothing": "exec 3<>$O/file; cat file",
    "opens for appending and changes nothing": "exec 3>>$O/file",
    "changes a mode": "chmod 600 $O/file",
    "sets the mode that it has": "chmod 644 $O/file",
    "sets a time": "touch -d 2001-02-03 $O/file",
    "sets the time of a directory": "touch -d 2001-02-03 $O/dir",
    "changes the mode of a directory": "chmod 700 $O/dir",
    "makes a directory": "mkdir $O/made",
    "makes directories": "mkdir -p $O/a/b/c",
    "removes a directory": "rm $O/dir/below; rmdir $O/dir",
    "removes a file": "rm $O/file",
    "removes a tree": "rm -r $O/dir",
    "renames": "mv $O/file $O/moved",
    "renames over a file": "mv $O/file $O/other",
    "moves out of the tree": "mv file $O/moved",
    "moves into the tree": "mv $O/file moved",
    "makes a symlink": "ln -s file $O/made",
    "replaces a symlink": "ln -sfn other $O/link",
    "links out of the tree": "ln file $O/made",
    "links into the tree": "ln $O/file linked",
    "makes a fifo": "mkfifo $O/made",
    "writes through a symlink of the tree": "ln -s $O way; echo new >way/made",
    "fails halfway": "echo half >$O/made; echo half >made; exit 3",
    "prints as well": "echo out; echo err >&2; echo new >$O/made",
    "swaps two files": "mv $O/file t; mv $O/other $O/file; mv t $O/other",
}
READS = {
    "reads a file": "cat $O/file",
    "reads a directory": "ls $O",
    "searches": "find $O -type f | sort",
    "copies a tree": "cp -a $O copy",
    "asks whether it may write": "test -w $O/file; echo $?",
    "fails to read": "cat $O/nothing",
}


@dataclass(frozen=True, slots=True)
class Scene:
    """A tree with a master of its own, and the directory outside it."""

    tree: Tree
    out: Path

    def prepare(self) -> None:
        """Put the same files into the tree and beside it as ever."""
        for path in self.tree.path.iterdir():
            if path.name in (".termite-socket", ".termite-staging"):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        shutil.rmtree(self.out, ignore_errors=True)
        script = (
            "mkdir -p dir; for f in file other dir/below; do echo $f >$f; done; ln -s file link; touch -d @{0} * dir/*"
        )
        self.out.mkdir()
        self.tree.own(self.out)
        assert self.tree.where.run(["sh", "-c", script.format(OLD_S)], self.out).code == 0
        self.tree.write("file", "in the tree\n")

    def result(self) -> tuple[Any, Any]:
        inside = {name: entry for name, entry in snapshot(self.tree.path).items() if not name.startswith(b".termite-")}
        return inside, snapshot(self.out)

    def run(self, script: str, **env: str) -> Outcome:
        return self.tree.termite("sh", "-c", script, env={"O": str(self.out), **env}, timeout_s=LIMIT_S)

    def plain(self, script: str) -> Outcome:
        return self.tree.plain("sh", "-c", script, env={"O": str(self.out)}, timeout_s=LIMIT_S)

    def begin_build(self) -> None:
        """Begin a build that does nothing, before which the master forgets the one before."""
        assert self.tree.make("-f", "/dev/null", "--eval", "all:").code == 0

    def ran_here(self) -> int:
        return int(self.tree.status()["fallbacks"].get(Reason.WRITES_OUTSIDE, 0))

    def known(self) -> int:
        """Return how many commands ran here without a try on a worker."""
        return int(self.tree.status()["tied"].get(Reason.WRITES_OUTSIDE, 0))


USERS = ["ordinary", "root"] if IS_ROOT else ["ordinary"]


@pytest.fixture(scope="module", params=USERS)
def shared_scene(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[Scene]:
    with make_place(request.param) as where, embedded(new_tree(where)) as tree:
        yield Scene(tree, where.base / "out")


@pytest.fixture
def scene(shared_scene: Scene) -> Scene:
    shared_scene.prepare()
    return shared_scene


@pytest.fixture(params=USERS)
def own(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[Scene]:
    """Yield a scene with a master that knows no command yet."""
    with make_place(request.param) as where, embedded(new_tree(where)) as tree:
        scene = Scene(tree, where.base / "out")
        scene.prepare()
        yield scene


def without_notices(stderr: bytes) -> bytes:
    return b"".join(line for line in stderr.splitlines(keepends=True) if not line.startswith(b"termite: "))


@pytest.mark.parametrize("what", WRITES)
def test_each_kind_of_write_is_as_after_a_plain_run(scene: Scene, what: str) -> None:
    plain = scene.plain(WRITES[what])
    expected = scene.result()
    scene.prepare()
    before = scene.ran_here()
    done = scene.run(WRITES[what], WHAT=what)
    assert (done.code, done.stdout, without_notices(done.stderr)) == (plain.code, plain.stdout, plain.stderr), done
    assert scene.result() == expected
    assert scene.ran_here() == before + 1


@pytest.mark.parametrize("what", READS)
def test_to_read_outside_the_tree_is_no_write(scene: Scene, what: str) -> None:
    plain = scene.plain(READS[what])
    scene.prepare()
    before = scene.ran_here(), scene.tree.jobs()
    # Another build may have written there, so the place is not in the text.
    assert scene.run(READS[what], WHAT=what) == plain
    assert (scene.ran_here(), scene.tree.jobs()) == (before[0], before[1] + 1)


def test_with_never_nothing_is_written_and_the_notice_says_where_and_what_helps(scene: Scene) -> None:
    before = scene.result()
    done = scene.run("echo x >$O/made; echo x >made; echo out", TERMITE_LOCAL="never")
    assert (done.code, done.stdout) == (103, b""), done
    assert f"writes outside the tree: {scene.out}/made; ".encode() in done.stderr
    assert b"TERMITE_LOCAL=never forbids" in done.stderr and b"add a Local rule" in done.stderr
    assert scene.result() == before


def test_a_rule_with_local_is_obeyed_with_never_too(scene: Scene) -> None:
    scene.tree.write(".termite-localrc", '[{"Regexp": "made", "Local": true}]')
    assert scene.run("echo x >$O/made", TERMITE_LOCAL="never") == Outcome(0, b"", b"")
    assert (scene.out / "made").exists()


def test_a_write_to_a_cache_is_dropped_and_named_once(scene: Scene) -> None:
    cache = scene.tree.where.base / "home" / ".cache"
    before = scene.tree.status()
    for number in range(2):
        done = scene.run(f"mkdir -p ~/.cache/c; echo {number} >~/.cache/c/x; echo x >made{number}")
        said = f"termite: 1 command wrote to {cache}, outside the tree: dropped\n".encode() if not number else b""
        assert done == Outcome(0, b"", said)
        assert (scene.tree.path / f"made{number}").exists()
    after = scene.tree.status()
    assert not (cache / "c").exists()
    assert after["jobs"]["remote"] == before["jobs"]["remote"] + 2
    assert after["dropped_writes"] == before["dropped_writes"] + 2


def test_a_cache_with_thousands_of_files_is_dropped_and_one_file_beside_it_is_not(scene: Scene) -> None:
    script = "mkdir -p ~/.cache/d; cd ~/.cache/d; seq 3000 | split -l 1 -a 4 - f"
    before = scene.ran_here()
    assert scene.run(script).code == 0
    assert scene.ran_here() == before
    assert scene.run(f"{script}; echo x >$O/made").code == 0
    assert scene.ran_here() == before + 1
    assert (scene.out / "made").exists()
    shutil.rmtree(scene.tree.where.base / "home" / ".cache" / "d")


def test_a_command_that_reads_a_file_gets_it_again(scene: Scene) -> None:
    scene.tree.write("input", "1\n2\n3\n")
    script = f"{scene.tree.where.word('termite')} sh -c 'cat >$O/made' <input; cat $O/made"
    done = scene.tree.plain("sh", "-c", script, env={"O": str(scene.out)}, timeout_s=LIMIT_S)
    assert (done.code, done.stdout) == (0, b"1\n2\n3\n"), done


def test_a_command_that_has_read_a_pipe_fails_once_and_then_runs_here(scene: Scene) -> None:
    def run() -> Outcome:
        env = {"O": str(scene.out)}
        return scene.tree.termite("sh", "-c", "cat >$O/piped", env=env, stdin=b"abc", timeout_s=LIMIT_S)

    done = run()
    assert done.code == 101, done
    assert f"writes outside the tree: {scene.out}/piped; the command has read its input".encode() in done.stderr
    assert not (scene.out / "piped").exists()
    assert run() == Outcome(0, b"", b"")
    assert (scene.out / "piped").read_bytes() == b"abc"


MAKEFILE = """\
DESTDIR = {out}/inst
all: prog lib
prog lib: ; echo $@ >$@
install: all
\tmkdir -p $(DESTDIR)/bin $(DESTDIR)/lib
\tinstall -m 755 prog $(DESTDIR)/bin/prog
\tinstall -m 644 lib $(DESTDIR)/lib/lib
\tls $(DESTDIR)/bin $(DESTDIR)/lib
"""


def test_make_install_installs_and_the_next_one_runs_here_at_once(own: Scene) -> None:
    own.tree.write("Makefile", MAKEFILE.format(out=own.out))
    plain = own.tree.plain("make", "install")
    expected = own.result()
    own.prepare()
    own.tree.write("Makefile", MAKEFILE.format(out=own.out))
    done = own.tree.make("install")
    assert (done.code, done.stdout) == (0, plain.stdout), done
    assert own.result() == expected
    # The first command wrote there, and the other ones name that place.
    assert (own.ran_here(), own.known()) == (1, 3)
    said = f"4 commands ran on this machine because of writes outside the tree, in {own.out}/inst"
    assert without_notices(done.stderr) == b""
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"termite: {said}; a rule for .termite-localrc"), done
    shutil.rmtree(own.out / "inst")
    again = own.tree.make("install")
    assert (again.code, own.ran_here()) == (0, 1)
    assert own.result() == expected


def test_the_rule_of_the_summary_ends_the_vain_runs(own: Scene) -> None:
    """Commands of another build, with other words at the same place, need no try on a worker."""
    own.tree.write("Makefile", MAKEFILE.format(out=own.out))
    first = own.tree.make("install").stderr.decode().splitlines()[0]
    own.tree.write(".termite-localrc", first[first.index("[{") :])
    before = own.ran_here(), own.known(), own.tree.jobs("local"), own.tree.jobs()
    own.tree.write("Makefile", MAKEFILE.format(out=own.out).replace("install -m", "install -p -m"))
    (own.tree.path / "prog").unlink()
    assert own.tree.make("-s", "install").stderr == b""
    after = own.ran_here(), own.known(), own.tree.jobs("local"), own.tree.jobs()
    assert [now - then for then, now in zip(before, after, strict=True)] == [0, 0, 4, 1]


def test_a_build_in_which_few_commands_write_outside_says_so_after_all_else(own: Scene) -> None:
    names = " ".join(f"f{number}" for number in range(30))
    own.tree.write("Makefile", f"all: {names} last\nf%: ; @echo $@ >$@\nlast: ; @cp file {own.out}/made\n")
    done = own.tree.make("-j2")
    said = f"termite: 1 command ran on this machine because of writes outside the tree, in {own.out}\n"
    assert done == Outcome(0, b"", said.encode())


OBJECTS = """obj/prog: obj/a.o obj/b.o ; cat $^ >$@
obj/%.o: %.c ; @cp $< $@; touch -r $< $@
"""


@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_symlinked_object_directory_is_as_plain(own: Scene, mode: int) -> None:
    def prepare() -> None:
        own.prepare()
        own.tree.write("Makefile", OBJECTS)
        for name in "ab":
            os.utime(own.tree.write(f"{name}.c", name), (OLD_S, OLD_S))
        own.tree.own(own.out)
        (own.tree.path / "obj").symlink_to(own.out)
        own.out.chmod(mode)

    prepare()
    plain = own.tree.plain("make")
    expected = own.result()
    prepare()
    done = own.tree.make()
    assert (done.code, done.stdout, without_notices(done.stderr)) == (0, plain.stdout, b""), done
    assert own.result() == expected
    assert own.tree.plain("make", "-q").code == 0


def test_what_is_left_in_shared_memory_is_there_for_the_next_command(scene: Scene) -> None:
    name = f"/dev/shm/termite-test-{os.getpid()}"
    script = f"echo x >{name}; cat {name}; echo done"
    before = scene.ran_here()
    try:
        assert scene.run(script).stdout == b"x\ndone\n"
        assert scene.ran_here() == before + 1
        assert Path(name).read_text() == "x\n"
        assert scene.run(f"cat {name}") == Outcome(0, b"x\n", b"")
    finally:
        Path(name).unlink(missing_ok=True)


def test_what_is_removed_from_shared_memory_again_is_no_write(scene: Scene) -> None:
    jobs = scene.tree.jobs()
    assert scene.run("echo x >/dev/shm/x; cat /dev/shm/x; rm /dev/shm/x") == Outcome(0, b"x\n", b"")
    assert scene.tree.jobs() == jobs + 1


# A private directory is a part of no job's view, so nothing that a job finds there is right.
PRIVATE = {
    "lists": "ls {out}",
    "removes": "rm -rf {out}/dir",
    "removes all": "rm -f {out}/f*",
    "tests": "test -f {out}/file && echo yes",
    "reads if it can": "cat {out}/file 2>/dev/null || echo none",
    "enters": "cd {out} && ls",
    "removes by a symlink": "ln -sfn {out} way && rm -f way/file",
    "reads relatively": "cat ../out/file",
    "removes by a variable": "rm -rf $O/dir",
    "searches for headers": "echo '#include <file>' | cat - -I{out} 2>&1 | head -1",
}


@pytest.mark.parametrize("what", PRIVATE)
def test_a_command_that_names_a_private_directory_is_as_plain(scene: Scene, what: str) -> None:
    script = PRIVATE[what].format(out=scene.out)
    scene.out.chmod(0o700)
    plain = scene.plain(script)
    expected = scene.result()
    scene.prepare()
    scene.out.chmod(0o700)
    scene.begin_build()  # other tests have found that the same paths can be seen
    jobs = scene.tree.jobs()
    assert scene.run(script, WHAT=what) == plain
    assert scene.result() == expected
    assert scene.tree.jobs() == jobs


def test_a_private_directory_that_is_only_a_text_for_the_compiler_is_none(scene: Scene) -> None:
    scene.out.chmod(0o700)
    jobs = scene.tree.jobs()
    assert scene.tree.termite("echo", f"-DPREFIX={scene.out}", "-rpath", f"{scene.out}/lib").code == 0
    assert scene.tree.jobs() == jobs + 1


def test_the_summary_names_the_private_directory(own: Scene) -> None:
    own.out.chmod(0o700)
    own.tree.write("Makefile", f"all: ; @cat {own.out}/file\n")
    said = f"1 command ran on this machine because of private paths, in {own.out}"
    shown = "termite-master -export shows them to workers"
    assert own.tree.make() == Outcome(0, b"file\n", f"termite: {said}; {shown}\n".encode())


def test_the_next_command_on_a_worker_sees_what_the_one_before_wrote_outside(own: Scene) -> None:
    """The second command does not name the place, so it runs on a worker."""
    assert own.run("find $O | sort").code == 0
    assert own.run("mkdir $O/new; echo 1 >$O/new/x; echo 2 >$O/file; rm $O/other").code == 0
    jobs = own.tree.jobs()
    assert own.run("cat $O/new/x $O/file; ls $O").stdout == own.plain("cat $O/new/x $O/file; ls $O").stdout
    assert own.tree.jobs() == jobs + 1


GIT = {
    "describe": "git describe --always --dirty; echo x >>tracked; git describe --always --dirty",
    "stash": "echo x >>tracked; git stash -q; git status --porcelain -uno; git stash pop -q; cat tracked",
    "commit": "echo x >>tracked; git commit -qam second; git log --format=%s",
    "archive": "git archive --format=tar -o ../made.tar HEAD .; tar tf ../made.tar",
}


@pytest.mark.parametrize(("what", "user"), [*((what, "ordinary") for what in GIT), ("commit", "root")])
def test_git_in_a_tree_below_its_repository_is_as_plain(make_place: MakePlace, what: str, user: str) -> None:
    if not shutil.which("git"):
        pytest.skip("git is not installed (apt-get install git)")
    with make_place(user) as where:
        outcomes = []
        for kind in ("plain", "termite"):
            repository = new_tree(where, f"repository-{kind}")
            env = {"GIT_AUTHOR_DATE": f"{OLD_S} +0000", "GIT_COMMITTER_DATE": f"{OLD_S} +0000"}
            env |= {f"GIT_{who}_{which}": "u" for who in ("AUTHOR", "COMMITTER") for which in ("NAME", "EMAIL")}
            project = repository.subtree("project")
            project.write("tracked", "x\n")
            script = "git init -q .; git add .; git commit -qm first; git tag v1"
            assert repository.plain("sh", "-c", script, env=env).code == 0
            if kind == "plain":
                done = project.plain("sh", "-c", GIT[what], env=env)
            else:
                with embedded(project) as tree:
                    done = tree.termite("sh", "-c", GIT[what], env=env)
                    assert tree.status()["fallbacks"] == {Reason.WRITES_OUTSIDE: 1}
                    assert (tree.path / ".termite-staging").is_dir()
                    assert b"termite" not in tree.plain("git", "status", "--porcelain", "-uall", ".").stdout
            head = repository.plain("git", "rev-parse", "HEAD").stdout
            outcomes.append((done.code, done.stdout, without_notices(done.stderr), head))
        assert outcomes[0] == outcomes[1]


def test_the_next_master_runs_the_command_here_at_once_and_why_says_so(make_place: MakePlace) -> None:
    with make_place("ordinary") as where:
        tree = new_tree(where)
        scene = Scene(tree, where.base / "out")
        with embedded(tree, short="auto"):
            scene.prepare()
            assert scene.run("echo x >$O/made").code == 0
            assert scene.ran_here() == 1
        with embedded(tree, short="auto"):
            (scene.out / "made").unlink()
            why = tree.ctl("why", "sh", "-c", "echo x >$O/made", env={"O": str(scene.out)}).stdout.decode()
            assert f"reason     writes outside the tree: {scene.out}" in why
            assert scene.run("echo x >$O/made") == Outcome(0, b"", b"")
            assert (scene.ran_here(), scene.known()) == (0, 1)
            assert (scene.out / "made").exists()
