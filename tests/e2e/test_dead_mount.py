"""A directory of the tree whose FUSE server was killed is no directory without entries."""

from pathlib import Path

import pytest

from tests.e2e.cluster import embedded, new_tree
from tests.e2e.conftest import MakePlace
from tests.e2e.places import COMMANDS
from tests.e2e.waiting import wait_until

SERVER = """
import sys, pyfuse3, trio
class Empty(pyfuse3.Operations):
    async def getattr(self, inode, ctx=None):
        entry = pyfuse3.EntryAttributes()
        entry.st_ino, entry.st_mode, entry.st_nlink = inode, 0o040755, 1
        entry.attr_timeout = entry.entry_timeout = 0
        return entry
pyfuse3.init(Empty(), sys.argv[1], {"fsname=termite-test"})
print("mounted", flush=True)
trio.run(pyfuse3.main)
"""
NOT_CONNECTED = b"Transport endpoint is not connected"


@pytest.mark.needs_root("mounts a file system in a namespace of its own")
def test_a_header_behind_a_dead_mount_is_missed_as_it_is_here(make_place: MakePlace) -> None:
    with make_place("root") as where, embedded(new_tree(where)) as tree:
        tree.mkdir("inc1")
        tree.write("inc2/h.h", "int x;\n")
        tree.write("x.c", '#include "h.h"\n')
        log = where.base / "server.log"
        with log.open("wb") as output:
            argv = [str(COMMANDS / "python"), "-c", SERVER, str(tree.path / "inc1")]
            server = where.start(argv, tree.path, stdout=output.fileno(), stderr=output.fileno())
        try:
            wait_until(lambda: b"mounted" in Path(log).read_bytes(), "the mount", log.read_text)
            server.kill()
            server.wait()
            gcc = ("gcc", "-Iinc1", "-Iinc2", "-c", "x.c")
            plain, far = tree.plain(*gcc), tree.termite(*gcc)
            assert plain.code == far.code == 1 and NOT_CONNECTED in plain.stderr, (plain, far)
            line = next(line for line in far.stderr.splitlines() if line.startswith(b"termite: "))
            assert b"/inc1': " + NOT_CONNECTED in line and b"1 command runs on this machine" in line, far
            jobs = tree.status()["jobs"]
            assert (jobs["remote"], jobs["local"]) == (0, 1), jobs
            assert tree.termite("gcc", "-Iinc2", "-c", "x.c").code == 0
            assert tree.termite("sh", "-c", "echo *").stdout == b"inc1 inc2 x.c x.o\n"
            assert tree.jobs("remote") == 2, "what does not touch the name runs on a worker, and lists it"
        finally:
            server.kill()
            server.wait()
            where.run(["umount", "-l", str(tree.path / "inc1")], where.base)
        done = tree.termite(*gcc)
        assert done.code == 0
        assert tree.jobs("remote") == 3, ("the name is looked at again", done, tree.status()["jobs"])
