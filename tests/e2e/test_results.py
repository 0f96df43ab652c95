"""The changes of a remote command appear in the user's tree, exactly, and nothing else does."""

import pytest

from tests.e2e.cluster import Tree
from tests.e2e.snapshot import snapshot, times

# Each is run once plainly and once remotely on the same tree; see `prepare` for what is there.
CHANGES = {
    "makes a file": "echo new >made",
    "makes an empty file": ": >made",
    "makes a big file": "head -c 20000000 /dev/zero | tr '\\0' x >made",
    "makes a directory tree": "mkdir -p a/b/c && echo x >a/b/c/x",
    "makes an empty directory": "mkdir made",
    "changes a file": "echo changed >file",
    "appends": "echo more >>file",
    "truncates": ": >file",
    "writes in the middle": "printf XX | dd of=file bs=1 seek=3 conv=notrunc status=none",
    "replaces a file by rename": "echo other >t && mv t file",
    "deletes a file": "rm file",
    "deletes what is not there": "rm -f nothing file",
    "deletes a directory": "rm -r dir",
    "deletes and remakes a file": "rm file && echo again >file",
    "deletes and remakes a directory": "rm -r dir && mkdir dir && echo only >dir/only",
    "deletes an empty directory": "rmdir empty",
    "moves a file": "mv file moved",
    "moves a file into a directory": "mv file dir/",
    "moves a directory": "mv dir moved",
    "moves a new directory": "mkdir n && echo x >n/x && mv n moved",
    "swaps two files": "mv file t && mv other file && mv t other",
    "puts a directory where a file was": "rm file && mkdir file && echo x >file/x",
    "puts a file where a directory was": "rm -r dir && echo x >dir",
    "puts a symlink where a directory was": "mv dir real && ln -s real dir",
    "puts a file where a symlink was": "rm link && echo x >link",
    "writes through a symlink": "echo through >link",
    "makes symlinks": "ln -s file s1 && ln -s /nowhere/at/all s2 && ln -s . s3",
    "makes a symlink with odd bytes": "ln -s \"$(printf 'a\\nb\\377')\" odd",
    "makes hard links": "echo x >h1 && ln h1 h2 && ln h1 h3",
    "links an existing file": "ln file hard",
    "links a file of two names": "ln hard1 hard3",
    "replaces one of two names": "mv other hard1",
    "copies hard links": "mkdir c && cp -a file hard1 hard2 c && tar --sort=name -cf - c | tar -tvf - | cut -c 1-10",
    "makes a fifo": "mkfifo pipe",
    "changes modes": "chmod 755 file && chmod 600 other && chmod 700 dir",
    "makes a read-only file": "echo x >made && chmod 444 made",
    "makes a file nobody may read": "echo x >made && chmod 000 made",
    "makes a sticky and a setgid directory": "mkdir s g && chmod 1777 s && chmod 2755 g",
    "overwrites a read-only file": "rm -f readonly && echo x >readonly",
    "works in a directory it made read-only": "mkdir r && echo x >r/x && chmod 555 r",
    "makes names with odd bytes": "printf x >\"$(printf 'a\\nb')\" && printf y >\"$(printf '\\377')\" && echo z >ünï",
    "makes many files": "mkdir m && cd m && for i in $(seq 1 300); do echo $i >f$i; done",
    "makes a deep tree": "p=.; for i in $(seq 1 60); do p=$p/d$i; done; mkdir -p $p && echo x >$p/x",
    "copies a tree": "cp -a dir copy",
    "unpacks an archive": "tar cf t.tar dir && rm -r dir && tar xf t.tar && rm t.tar",
    "fails halfway": "echo half >made; rm other; exit 3",
    "dies halfway": "echo half >made; rm other; kill -9 $$",
    "touches only a time": "touch -d '2001-02-03 04:05:06.789' file",
    "does nothing": "true; cat file",
    "opens for writing and writes nothing": "exec 3>>file; exec 4<>other",
    "sets the mode it has": "chmod 644 file",
}


def prepare(tree: Tree) -> None:
    done = tree.plain(
        "sh",
        "-c",
        "chmod -Rf u+rwX work; rm -rf work; mkdir work && cd work"
        " && mkdir -p dir/sub empty && echo file >file && echo other >other"
        " && echo in >dir/in && echo deep >dir/sub/deep && ln -s file link && echo ro >readonly && chmod 444 readonly"
        " && echo h >hard1 && ln hard1 hard2",
    )
    assert done.code == 0, done


@pytest.mark.parametrize("script", CHANGES.values(), ids=CHANGES.keys())
def test_the_tree_is_the_same_as_after_a_local_run(tree: Tree, script: str) -> None:
    prepare(tree)
    near = tree.plain("sh", "-c", script, within="work")
    expected = snapshot(tree.path)
    prepare(tree)
    before = tree.jobs()
    far = tree.termite("sh", "-c", script, within="work")
    assert far == near
    assert tree.jobs() == before + 1, "it ran here"
    assert snapshot(tree.path) == expected


READING = {
    "reads": "cat file dir/in >/dev/null; ls -lR >/dev/null",
    "opens for appending": "exec 3>>file",
    "opens for reading and writing": "exec 3<>file",
    "sets the mode it has": "chmod 644 file",
    "uses the temporary directory": "echo x >/tmp/x.$$; rm /tmp/x.$$",
    "fails": "false",
}


@pytest.mark.parametrize("script", READING.values(), ids=READING.keys())
def test_a_command_that_changes_nothing_brings_nothing_home(tree: Tree, script: str) -> None:
    prepare(tree)
    tree.termite("true", "first")
    untouched, number = times(tree.path / "work"), tree.status()["journal"]
    tree.termite("sh", "-c", script, within="work")
    assert times(tree.path / "work") == untouched
    assert tree.status()["journal"] == number


def test_times_that_the_command_set_stay_to_the_nanosecond(tree: Tree) -> None:
    script = "touch -d @1000000000.123456789 a && mkdir d && touch -d @4000000000.000000001 d && cp -p a b"
    assert tree.termite("sh", "-c", script).code == 0
    found = times(tree.path)
    assert (found[b"a"], found[b"b"]) == (1000000000123456789, 1000000000123456789)
    assert found[b"d"] == 4000000000000000001


def test_new_files_are_as_new_as_the_file_system_says_and_in_order(tree: Tree) -> None:
    before = tree.write("before", "x").stat().st_mtime_ns
    assert tree.termite("sh", "-c", "echo 1 >first; sleep 0.05; echo 2 >second").code == 0
    after = tree.write("after", "x").stat().st_mtime_ns
    found = times(tree.path)
    assert before <= found[b"first"] < found[b"second"] <= after


def test_files_belong_to_the_user(tree: Tree) -> None:
    assert tree.termite("sh", "-c", "echo x >made; mkdir d; ln -s made l").code == 0
    assert {(tree.path / name).lstat().st_uid for name in ("made", "d", "l")} == {tree.where.uid}


def test_the_status_for_people_says_what_a_job_costs_in_requests(tree: Tree) -> None:
    tree.write("file", "x\n")
    assert tree.termite("cat", "file").code == 0
    status = tree.status()
    fuse, remote = status["fuse_requests"], status["jobs"]["remote"]
    wire = sum(status["messages"][kind] for kind in status["messages"] if kind not in ("OpenLease", "Ping", "SetSlots"))
    assert fuse >= 1 and wire >= remote
    said = f"per remote job: {fuse / remote:.1f} FUSE requests, {wire / remote:.1f} requests on the wire"
    assert said in tree.ctl("status").stdout.decode()


def test_a_socket_in_the_tree_stays_on_its_worker_and_is_told_and_counted_as_one(tree: Tree) -> None:
    before = tree.status()
    done = tree.termite("python3", "-c", "import socket; socket.socket(1).bind('o.sock')")
    said = f"termite: 1 command left a socket on its worker: {tree.path}/o.sock (add a Local rule to run it here)\n"
    assert (done.code, done.stderr.decode()) == (0, said)
    after = tree.status()
    assert [after[key] - before[key] for key in ("sockets_left", "dropped_writes")] == [1, 0]
    assert not (tree.path / "o.sock").exists()


def test_the_answer_comes_only_when_every_output_has_its_name(tree: Tree) -> None:
    script = f'for i in $(seq 1 20); do {tree.where.word("termite")} sh -c "echo $i >out$i"; cat out$i; done'
    assert tree.plain("sh", "-c", script).stdout == b"".join(b"%d\n" % i for i in range(1, 21))
