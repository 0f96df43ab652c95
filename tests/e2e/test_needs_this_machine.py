"""Commands that a sandbox cannot run as the user's own machine does end as there, or run there."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from termite.engine.errors import Reason
from tests.e2e.cluster import Tree, embedded, new_tree
from tests.e2e.conftest import MakePlace
from tests.e2e.places import Outcome

PACKAGE = """
mkdir d; echo 1 >d/f; chown -R 0:0 d; chown 12:34 d/f; install -o 5 -g 6 d/f d/g
tar --numeric-owner --sort=name -cf p.tar d; tar --numeric-owner -tvf p.tar | sed 's/ 20..-.*//'; rm -r d p.tar
"""
EXTENDED = "import os; open('f', 'w').close(); os.setxattr({name!r}, 'user.mine', b'1')"


def home_runs(tree: Tree, reason: Reason) -> int:
    return int(tree.status()["fallbacks"].get(reason, 0))


@pytest.fixture
def owned(make_place: MakePlace) -> Iterator[Tree]:
    with make_place("root") as where, embedded(new_tree(where)) as tree:
        yield tree


def test_a_package_is_made_below_fakeroot_in_a_recipe(tree: Tree) -> None:
    if not shutil.which("fakeroot"):
        pytest.skip("fakeroot is not installed (apt-get install fakeroot)")
    plain = tree.plain("fakeroot", "sh", "-ec", PACKAGE)
    assert (plain.code, plain.stdout.count(b"5/6")) == (0, 1), plain
    done = tree.termite("fakeroot", "sh", "-ec", PACKAGE)
    assert (done.code, done.stdout) == (plain.code, plain.stdout), done
    if tree.where.uid:
        assert done.stderr == plain.stderr, "it ran on the worker"


def test_an_ordinary_user_gets_the_error_of_a_plain_build(user_tree: Tree) -> None:
    script = "touch f; chown 0 f; chgrp 0 f; chown $(id -u):$(id -g) f && echo own"
    plain, jobs = user_tree.plain("sh", "-c", script), user_tree.jobs()
    assert user_tree.termite("sh", "-c", script) == plain
    assert plain.stderr.count(b"Operation not permitted") == 2
    assert user_tree.jobs() == jobs + 1


@pytest.fixture
def user_tree(tree: Tree) -> Tree:
    if not tree.where.uid:
        pytest.skip("this is about an ordinary user")
    return tree


@pytest.mark.needs_root("gives files away")
@pytest.mark.parametrize(
    "script",
    [
        "tar --owner=1000 --group=1001 -cf t Makefile; rm -f out; mkdir out; tar -C out -xf t; stat -c %u:%g out/*",
        "touch out; chown 1000:1001 out; stat -c %u:%g out",
        "touch out; setpriv --reuid 1000 --regid 1001 --clear-groups sh -c 'echo $(id -u):$(id -g)'",
    ],
    ids=["tar", "chown", "setpriv"],
)
def test_what_root_gives_away_is_given_away_here(owned: Tree, script: str) -> None:
    owned.write("Makefile", "")
    done = owned.termite("sh", "-c", script)
    assert (done.code, done.stdout) == (0, b"1000:1001\n"), done
    assert done.stderr.count(Reason.FOREIGN_IDS.words.encode()) == 1
    assert home_runs(owned, Reason.FOREIGN_IDS) == 1


def test_the_owners_of_files_outside_the_tree_are_those_of_a_plain_build(tree: Tree) -> None:
    script = "ls -n /etc/passwd | cut -d' ' -f3,4; stat -c %u:%g /usr; test -w /usr && echo w; [ -O /etc ] && echo own"
    archive = "tar --numeric-owner -cf t /etc/passwd 2>/dev/null; tar --numeric-owner -tvf t | cut -d' ' -f2"
    for line in (f"{script}; true", archive):
        plain, jobs = tree.plain("sh", "-c", line), tree.jobs()
        assert tree.termite("sh", "-c", line, env={"TERMITE_LOCAL": "never"}) == plain
        assert tree.jobs() == jobs + (0 if tree.where.uid else 1), "it ran here for an ordinary user"


OF_SEVERAL = {  # the lines, and whether the command runs on the worker
    "ls -ln f | cut -d' ' -f3,4; tar --numeric-owner -cf t f; tar --numeric-owner -tvf t | cut -d' ' -f2": False,
    "cp -a f g; stat -c %u:%g g": False,
    "echo 2 >>f": True,
    "sed -i s/1/2/ f": False,
    "rm f; echo 2 >f": False,
    "mv f g": False,
    "cat f >g": True,
}


@pytest.mark.needs_root("gives files away")
def test_root_finds_and_leaves_the_owners_of_a_tree_of_several_users(owned: Tree) -> None:
    def facts(tree: Tree) -> dict[str, object]:
        found = {name: tree.path / name for name in "fg" if (tree.path / name).exists()}
        return {name: ((st := path.stat()).st_uid, st.st_gid, path.read_bytes()) for name, path in found.items()}

    for number, (line, is_remote) in enumerate(OF_SEVERAL.items()):
        plain, remote = (owned.subtree(f"{kind}{number}") for kind in ("plain", "remote"))
        for tree in (plain, remote):
            os.chown(tree.write("f", "1\n"), 1000, 1001)
        jobs, expected, done = owned.jobs(), plain.plain("sh", "-c", line), remote.termite("sh", "-c", line)
        assert (done.code, done.stdout, facts(remote)) == (expected.code, expected.stdout, facts(plain)), (line, done)
        assert owned.jobs() == jobs + is_remote, line


@pytest.mark.needs_root("writes to setuid files")
@pytest.mark.parametrize("mode", [0o4755, 0o2755])
def test_what_root_writes_to_keeps_its_special_bits(owned: Tree, mode: int) -> None:
    owned.write("f", "1\n").chmod(mode)
    assert owned.termite("sh", "-c", "echo 2 >>f").code == 0
    assert ((owned.path / "f").read_text(), (owned.path / "f").stat().st_mode & 0o7777) == ("1\n2\n", mode)
    assert home_runs(owned, Reason.BITS_LOST) == 1


@pytest.mark.needs_root("gives files away")
def test_where_the_command_may_not_run_here_it_fails(owned: Tree) -> None:
    done = owned.termite("sh", "-c", "touch out; chown 5 out", env={"TERMITE_LOCAL": "never"})
    assert done.code == 103
    assert Reason.FOREIGN_IDS.words.encode() in done.stderr
    assert not (owned.path / "out").exists()


@pytest.mark.parametrize("name", ["f", "."], ids=["file", "directory"])
def test_an_attribute_that_a_job_leaves_is_set_here(tree: Tree, name: str) -> None:
    before = home_runs(tree, Reason.ATTRIBUTES_SET)
    done = tree.termite("python3", "-c", EXTENDED.format(name=name))
    assert done.code == 0, done
    assert Reason.ATTRIBUTES_SET.words.encode() in done.stderr
    assert os.getxattr(tree.path / name, "user.mine") == b"1"
    assert home_runs(tree, Reason.ATTRIBUTES_SET) == before + 1


@pytest.mark.parametrize(
    ("script", "there", "runs_here"),
    [
        ("echo more >>f", "f", 0),
        ("printf X | dd of=f conv=notrunc status=none", "f", 0),
        ("chmod 600 f", "f", 0),
        ("mv f g", "g", 1),
        ("mv f other", "other", 1),
        ("mv d e", "e/f", 1),
        ("mv d/f d/g", "d/g", 1),
        ("sed -i s/a/y/ plain; mv plain moved; rm f; echo >h", "", 0),
    ],
)
def test_attributes_of_files_stay_as_after_a_plain_run(tree: Tree, script: str, there: str, runs_here: int) -> None:
    for name in ("f", "other", "plain", "d/f"):
        path = tree.write(name, f"{name}\n")
        os.utime(path, (10**9, 10**9))
        if name.endswith("f"):
            os.setxattr(path, "user.mine", name.encode())
    before = home_runs(tree, Reason.ATTRIBUTES_SET)
    done = tree.termite("sh", "-c", script)
    assert done.code == 0, done
    assert home_runs(tree, Reason.ATTRIBUTES_SET) == before + runs_here
    if there:
        assert os.getxattr(tree.path / there, "user.mine") == (b"d/f" if "/" in there else b"f")


@pytest.mark.parametrize(
    ("script", "mode"),
    [
        ("mv f g; stat -c %a g", 0),
        ("chmod 644 f; cat f", 0),
        ("ln f g; echo $?", 0),
        ("touch -d @5 f; date -r f +%s", 0),
        ("echo 2 >>f; stat -c %s f", 0o200),
        ("./f", 0o111),
        ("cat f; echo $?", 0),
    ],
)
def test_a_file_that_its_owner_may_not_read_is_as_plain(tree: Tree, script: str, mode: int) -> None:
    done = []
    for way in ("plain", "termite"):
        place = tree.subtree(way)
        shutil.copy("/bin/true", place.path / "f")
        place.own(place.path / "f")
        (place.path / "f").chmod(mode)
        ended = getattr(place, way)("sh", "-c", script)
        done.append((ended.code, ended.stdout[:20], sorted((p.name, p.lstat().st_mode) for p in place.path.iterdir())))
    assert done[0] == done[1]


def test_an_attribute_that_a_job_removes_again_is_nobodys_business(tree: Tree) -> None:
    jobs = tree.jobs()
    script = EXTENDED.format(name="f") + "; os.removexattr('f', 'user.mine')"
    assert tree.termite("python3", "-c", script) == Outcome(0, b"", b"")
    assert tree.jobs() == jobs + 1


def test_a_command_sees_the_space_of_the_users_disk(tree: Tree) -> None:
    before, jobs = home_runs(tree, Reason.SPACE_ASKED), tree.jobs()
    show = "stat -f -c '%b %S %l' . .. && python3 -c 'import os; print(os.statvfs(\".\").f_blocks)'"
    tree.write("ask", show)
    plain = tree.plain("sh", "-c", show)
    done = tree.termite("sh", "./ask")
    assert (done.code, done.stdout) == (0, plain.stdout), done
    assert home_runs(tree, Reason.SPACE_ASKED) == before + 1
    assert (
        tree.termite("sh", "-c", "mkdir d; cp -p ask d; mv d/ask d/b; ls d", env={"TERMITE_LOCAL": "never"}).code == 0
    )
    assert tree.jobs() == jobs + 1, "cp, mv and ls only look for SELinux"


@pytest.mark.skipif(not shutil.which("tar"), reason="tar is not installed")
def test_two_names_of_a_file_are_one_file_in_an_archive(tree: Tree) -> None:
    script = "ln one two && tar cf t one two && tar tvf t | cut -c1"
    tree.write("one", "1")
    before, jobs = home_runs(tree, Reason.LINK_READ), tree.jobs()
    done = tree.termite("sh", "-c", script)
    assert (done.code, done.stdout) == (0, b"-\nh\n"), done
    assert home_runs(tree, Reason.LINK_READ) == before + 1
    assert (tree.path / "one").samefile(tree.path / "two")
    for link in ("ln one three", "rm three; ln one three", "echo 1 >new; ln new other; tar cf t new other"):
        assert tree.termite("sh", "-c", link).code == 0
    assert tree.jobs() == jobs + 3, "nobody compares the names, or the job itself has made the file"
    assert os.stat(tree.path / "one").st_nlink == 3
    for command in ("cp -a c copy", "mv m copy2"):
        _, old, new = command.rsplit(" ", 2)
        tree.write(f"{old}/one", "1")
        done = tree.termite("sh", "-c", f"ln {old}/one {old}/two && {command}; stat -c %h {new}/one")
        assert (done.code, done.stdout) == (0, b"2\n"), done
    assert home_runs(tree, Reason.LINK_READ) == before + 3
    tree.write("pack", "ln $1 $2; tar cf t $1 $2; tar tvf t | cut -c1; ls -i $1 $2 | cut -d' ' -f1 | uniq | wc -l")
    done = tree.termite("sh", "pack", "pack", "packed")
    assert (done.code, done.stdout) == (0, b"-\nh\n1\n"), done
    assert home_runs(tree, Reason.LINK_READ) == before + 4, "a script may compare them as well"


@pytest.mark.needs_root("gives a user another group")
def test_a_file_goes_to_another_group_of_its_user_here(make_place: MakePlace) -> None:
    with make_place("ordinary") as where:
        become = tuple(word if word != "--clear-groups" else "--groups=61234" for word in where.become)
        with embedded(new_tree(replace(where, become=become))) as tree:
            done = tree.termite("sh", "-c", "touch f; chgrp 61234 f && stat -c %g f")
            assert (done.code, done.stdout) == (0, b"61234\n"), done
            assert (tree.path / "f").stat().st_gid == 61234
            refused = tree.termite("sh", "-c", "touch g; chgrp 61235 g")
            assert (refused.code, refused.stderr.count(b"Operation not permitted")) == (1, 1), refused
            assert home_runs(tree, Reason.FOREIGN_IDS) == 1


@pytest.mark.needs_root("gives files away")
def test_root_makes_devices_here(owned: Tree) -> None:
    done = owned.termite("sh", "-c", "mknod null c 1 3; stat -c %F null")
    assert (done.code, done.stdout) == (0, b"character special file\n"), done
    assert home_runs(owned, Reason.DEVICE_MADE) == 1


def test_sys_shows_the_processors_and_the_jobs_own_network(tree: Tree) -> None:
    jobs = tree.jobs()
    done = tree.termite("sh", "-c", "cat /sys/devices/system/cpu/online; ls /sys/class/net; ls /sys")
    assert done == Outcome(0, (Path("/sys/devices/system/cpu/online").read_bytes() + b"lo\nclass\ndevices\n"), b"")
    assert tree.termite("sh", "-c", "echo 0 >/sys/devices/system/cpu/cpu1/online").code
    assert tree.jobs() == jobs + 2


def test_git_clones_a_repository_of_the_tree(tree: Tree) -> None:
    if not shutil.which("git"):
        pytest.skip("git is not installed (apt-get install git)")
    assert tree.plain("git", "init", "-q", "one").code == 0
    before, jobs = home_runs(tree, Reason.LINKS_COMPARED), tree.jobs()
    commit = "git -c user.name=a -c user.email=a@b commit -q -m x"
    made = tree.termite("sh", "-ec", f"cd one; echo 1 >f; git add f; {commit}; git gc -q")
    assert (made.code, made.stderr) == (0, b""), made
    counts = (tree.jobs(), home_runs(tree, Reason.LINKS_COMPARED))
    assert counts == (jobs + 1, before), "its new objects are no clones"
    done = tree.termite("sh", "-ec", "git clone -q ./one two; cat two/f")
    assert (done.code, done.stdout) == (0, b"1\n"), done
    assert home_runs(tree, Reason.LINKS_COMPARED) == before + 1
