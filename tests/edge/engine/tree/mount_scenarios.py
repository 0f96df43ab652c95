"""Run one scenario in a mount namespace of its own: other file systems are mounted below the tree.

usage: python -m tests.edge.engine.tree.mount_scenarios SCENARIO DIRECTORY, after unshare. The tree
is DIRECTORY/proj, and a tmpfs of 256 KiB or a bind mount is its `build`.
"""

import errno
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, cast

import trio

from termite.engine.errors import FsError, Stale
from termite.engine.model import Attr
from termite.engine.tree import disk_calls
from termite.engine.tree.logic.redo_plan import JobEnd
from termite.engine.tree.master_tree import MasterTree, TreeConfig
from termite.engine.tree.publishing.publication import Ticket
from termite.engine.tree.publishing.redo import finish_job
from termite.engine.tree.tools.slow_mounts import WatchedMounts
from tests.edge.engine.tree.tree_jobs import (
    NS,
    Job,
    agrees_with_the_disk,
    digest_of,
    not_for_ever,
    serve,
    staged_names,
    tree_path,
)

T = TypeVar("T")

TOKEN = b"launcher"
END = JobEnd(TOKEN, 2**22 + 1, 3, 0, b"")
KILLED = 9
CALLS = [name for name in vars(disk_calls) if not name.startswith("_")]
STEP = 3  # of the sweeps: a round takes 0.2 s on a busy machine
BUILD_BYTES = 256 * 1024


def main() -> None:
    root = Path(sys.argv[2]) / "proj"
    (root / "build").mkdir(parents=True, exist_ok=True)
    globals()[sys.argv[1]](root)


def mount_tmpfs(path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={BUILD_BYTES}", "none", path], check=True)


def mount_bind(root: Path) -> Path:
    """Show a directory beside the tree at `build`, and return it."""
    beside = root.parent / "beside"
    beside.mkdir()
    subprocess.run(["mount", "--bind", beside, root / "build"], check=True)
    return beside


def umount(root: Path) -> None:
    subprocess.run(["umount", root / "build"], check=True)


def at_once(call: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns that never waits."""
    try:
        call.send(None)
    except StopIteration as ended:
        return cast(T, ended.value)
    raise AssertionError("it waits")


def new_master(root: Path) -> MasterTree:
    return MasterTree(TreeConfig(tree_path(root)))


def areas(root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in root.rglob(".termite-staging-*")]


def a_job(home: MasterTree, root: Path) -> Job:
    """Return a job that writes to both file systems; the trees of `results` are its outcomes."""
    # A worker reports directories in which something is new as well.
    job = (
        Job(home, root).mkdir("build").mkdir("build/d").write("build/d/f", b"content", 0o750).write("build/old", b"new")
    )
    job.write("top", b"top").delete("build/gone").mkdir("e").write("e/g", b"content", 0o644)
    attr = Attr(stat.S_IFREG | 0o750, 7, time.time_ns(), job.changes[2].attr.digest if job.changes[2].attr else None)
    job.change("build/d/h", attr, link_to="build/d/f").change("e/h", attr, link_to="build/d/f")
    job.change("build/d/l", Attr(stat.S_IFLNK | 0o777, 1, time.time_ns(), target=b"f"))
    return job.change("build/p", Attr(stat.S_IFIFO | 0o622, 0, time.time_ns()))


def fill(root: Path) -> None:
    (root / "build/old").write_bytes(b"old")
    (root / "build/gone").mkdir()
    (root / "build/gone/x").write_bytes(b"x")


BEFORE = {"build/old": b"old", "build/gone/x": b"x"}
AFTER = {
    "build/d/f": b"content",
    "build/d/h": b"content",
    "build/d/l": b"content",
    "build/old": b"new",
    "top": b"top",
    "e/g": b"content",
    "e/h": b"content",
}


def contents(root: Path) -> dict[str, bytes]:
    paths = [path for path in root.rglob("*") if "/.termite-staging" not in str(path)]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths if path.is_file()}


# -- scenarios --------------------------------------------------------------------------------------------------------


def results_come_whole(root: Path) -> None:
    mount_tmpfs(root / "build")
    fill(root)

    async def run() -> None:
        home = new_master(root)
        await serve(home, root, root / "build", root / "build" / "gone")
        await a_job(home, root).end()
        assert contents(root) == AFTER
        assert (root / "build/d/h").samefile(root / "build/d/f") and (root / "build/p").is_fifo()
        assert stat.S_IMODE((root / "build/d/f").stat().st_mode) == 0o750
        for directory in ("build", "build/d", "e"):
            assert await agrees_with_the_disk(home, root / directory)
        assert not (root / "build/gone").exists()
        assert areas(root) == []
        home.close()
        assert not (root / ".termite-staging").exists()

    trio.run(run)


def a_bind_mount_is_another_volume(root: Path) -> None:
    """Publish to another mount of the same file system, to which rename refuses to go."""
    beside = mount_bind(root)
    fill(root)

    def refuse(*args: Any, **options: Any) -> int:
        raise AssertionError("a result is staged where it will stand")

    async def run() -> None:
        home = new_master(root)
        await serve(home, root, root / "build")
        job = Job(home, root).write("build/old", b"new")
        disk_calls.copy_file_range = refuse
        await job.end()
        assert (beside / "old").read_bytes() == b"new" and areas(root) == []
        home.close()

    trio.run(run)


def jobs_see_no_area(root: Path) -> None:
    mount_tmpfs(root / "build")
    fill(root)

    async def run() -> None:
        home = new_master(root)
        await serve(home, root, root / "build")
        os.utime(root / "build", ns=(5, 5))
        number = home.drain()
        seen: list[bool] = []

        def look() -> bool:
            assert len(areas(root)) == 1 and areas(root)[0].startswith("build/")
            assert stat.S_IMODE((root / areas(root)[0]).stat().st_mode) == 0o700
            assert (root / areas(root)[0] / ".gitignore").read_bytes() == b"*\n", "git status does not list it"
            home.drain()
            _, own, children = at_once(home.directory(tree_path(root / "build")))
            assert own.mtime_ns == 5 and set(children) == {b"old", b"gone"}
            try:
                at_once(home.directory(tree_path(root / areas(root)[0])))
            except Stale:
                seen.append(True)
            return True

        job = Job(home, root).write("build/gone/y", b"y")
        await job.end(ticket=Ticket(END, lambda: True, look))
        assert seen == [True] and areas(root) == []
        home.drain()
        changed = {change.path for changeset in home.changesets_since(number) for change in changeset.changes}
        assert tree_path(root / "build") not in changed and os.stat(root / "build").st_mtime_ns == 5
        home.close()

    trio.run(run)


def no_symlink_is_an_area(root: Path) -> None:
    """Put a symlink to a directory of the same file system where the area would be."""
    mount_tmpfs(root / "build")
    fill(root)

    async def run() -> None:
        home = new_master(root)
        await serve(home, root, root / "build")
        (root / "build/other").mkdir()
        name = f".termite-staging-{os.fsdecode(home._staging.plan.label)}"
        (root / "build" / name).symlink_to("other")
        staged: list[list[str]] = []

        def look() -> bool:
            staged.append(os.listdir(root / "build/other"))
            return True

        try:
            await Job(home, root).write("build/old", b"new").end(ticket=Ticket(END, lambda: True, look))
        except FsError:
            staged.append(os.listdir(root / "build/other"))
        assert staged == [[]], "nothing is staged where the symlink leads"
        (root / "build" / name).unlink()
        home.close()

    trio.run(run)


def an_area_of_another_user_is_not_used(root: Path) -> None:
    """Let another user have a directory of the area's name, in which everybody may write."""
    mount_tmpfs(root / "build")
    fill(root)

    async def run() -> None:
        home = new_master(root)
        await serve(home, root, root / "build", root / "build/gone")
        theirs = root / "build" / f".termite-staging-{os.fsdecode(home._staging.plan.label)}"
        theirs.mkdir()
        theirs.chmod(0o777)
        os.chown(theirs, 1000, 1000)
        found: list[str] = []

        def look() -> bool:
            found.extend(areas(root))
            assert os.listdir(theirs) == []
            return True

        await Job(home, root).write("build/gone/y", b"y").end(ticket=Ticket(END, lambda: True, look))
        assert sorted(map(os.path.dirname, found)) == ["build", "build/gone"], "its area is below"
        theirs.rmdir()
        home.close()

    trio.run(run)


def a_full_disk_refuses_before_anything_is_changed(root: Path) -> None:
    mount_tmpfs(root / "build")
    fill(root)

    async def run() -> None:
        home = new_master(root)
        await serve(home, root, root / "build")
        for content in (b"x" * 2 * BUILD_BYTES, None):
            job = Job(home, root).write("top", b"top").write("build/old", content or b"")
            if content is None:  # a file that was fetched to the main file system
                writer = home.staging_file()
                writer.write(b"y" * 2 * BUILD_BYTES)
                job.write("build/old", b"y" * 2 * BUILD_BYTES)
                digest = job.changes[-1].attr.digest if job.changes[-1].attr else None
                assert digest is not None
                job.contents[digest.sha256] = writer.finish(digest)
            ticket = Ticket(END, lambda: True)
            try:
                await job.end(ticket=ticket)
            except FsError as error:
                assert error.errno == errno.ENOSPC and not ticket.has_happened
            else:
                raise AssertionError("it should not fit")
            assert contents(root) == BEFORE
            assert areas(root) == [] and [n for n in staged_names(root) if ".area-" not in n] == []
        await Job(home, root).write("build/old", b"new").end()
        assert (root / "build/old").read_bytes() == b"new"
        home.close()

    trio.run(run)


def only_a_lower_directory_is_ours(root: Path) -> None:
    """Show another user's directory at `build`, in which `mine` is ours."""
    beside = mount_bind(root)
    (beside / "mine/deep").mkdir(parents=True)
    os.chown(beside, 1000, 1000)
    # Root of a user namespace without user 1000 has no power over that user's directory.
    program = [sys.executable, "-m", "tests.edge.engine.tree.mount_scenarios", "stage_in_a_lower_directory"]
    subprocess.run(["unshare", "--user", "--map-root-user", *program, root.parent], check=True)


def stage_in_a_lower_directory(root: Path) -> None:
    async def run() -> None:
        home = new_master(root)
        await serve(home, root, root / "build", root / "build/mine/deep")
        found: list[str] = []

        def look() -> bool:
            found.extend(areas(root))
            return True

        await Job(home, root).write("build/mine/deep/f", b"1").end(ticket=Ticket(END, lambda: True, look))
        assert [os.path.dirname(name) for name in found] == ["build/mine"] and areas(root) == []
        ticket = Ticket(END, lambda: True)
        try:
            await Job(home, root).write("top", b"1").write("build/f", b"1").end(ticket=ticket)
        except FsError as error:
            assert error.errno == errno.EACCES and not ticket.has_happened
        else:
            raise AssertionError("it cannot be staged there")
        assert contents(root) == {"build/mine/deep/f": b"1"}
        home.close()

    trio.run(run)


def is_killed_at(root: Path, last: int) -> bool:
    """Run the job in a process that ends at its `last`-th call. Return whether it came to that."""
    pid = os.fork()
    if not pid:
        count = 0

        def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*args: Any, **options: Any) -> Any:
                nonlocal count
                count += 1
                if count == last:
                    os._exit(KILLED)
                return call(*args, **options)

            return counted

        async def run() -> None:
            home = new_master(root)
            await serve(home, root, root / "build", root / "build/gone")
            job = a_job(home, root)
            for name in CALLS:
                setattr(disk_calls, name, wrap(getattr(disk_calls, name)))
            await job.end(ticket=Ticket(END, lambda: False))
            os._exit(0)

        trio.run(run)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == KILLED


def _sweep(root: Path, finish: Callable[[], bool]) -> None:
    mount_tmpfs(root / "build")
    last, happened = 1 - STEP, 0
    was_killed = True
    while was_killed:
        subprocess.run(f"rm -rf {root}/top {root}/e {root}/build/*", shell=True, check=True)
        fill(root)
        last += STEP
        was_killed = is_killed_at(root, last)
        is_whole = finish()
        assert contents(root) == (AFTER if is_whole else BEFORE), last
        assert is_whole or not happened, last
        happened += is_whole
    assert last > 50 and happened * STEP > 15, (last, happened)


def a_killed_master_is_finished_by_its_launcher(root: Path) -> None:
    _sweep(root, lambda: finish_job(root, TOKEN, print, 0) is not None)


def a_killed_master_is_finished_by_the_next_one(root: Path) -> None:
    def finish() -> bool:
        new_master(root).close()
        assert areas(root) == [] and not (root / ".termite-staging").exists()
        return (root / "top").exists()

    _sweep(root, finish)


def _kill_after_the_plan(root: Path) -> Path:
    beside = mount_bind(root)
    last = 20
    while not (root / "top").exists():
        last += 1
        subprocess.run(f"rm -rf {root}/.termite-staging {root}/build/* {root}/build/.t*", shell=True, check=True)
        fill(root)
        assert is_killed_at(root, last)
    assert areas(root) and not (root / "build/d/l").is_symlink(), "it was killed in the middle"
    umount(root)
    return beside


def an_unmounted_area_is_named(root: Path) -> None:
    beside = _kill_after_the_plan(root)
    said: list[str] = []
    end = finish_job(root, TOKEN, said.append, 0)
    assert end is not None and end.code == 101, end
    assert "the file system at build is not mounted any more" in said[0], said
    assert said[1].startswith("written: ") and " top" in said[1], said
    assert said[2].startswith("not written: ") and "build/d/l" in said[2], said
    assert os.listdir(root / "build") == []
    _is_cleared_when_it_is_mounted_again(root, beside)


def an_unmounted_area_is_discarded_by_the_next_master(root: Path) -> None:
    beside = _kill_after_the_plan(root)
    new_master(root).close()
    assert sorted(os.listdir(root / ".termite-staging")) == [".gitignore", "discarded"], "nobody has heard of it"
    assert os.listdir(root / "build") == []
    _is_cleared_when_it_is_mounted_again(root, beside)


def _is_cleared_when_it_is_mounted_again(root: Path, beside: Path) -> None:
    assert [name for name in os.listdir(beside) if name.startswith(".termite-staging-")]
    subprocess.run(["mount", "--bind", beside, root / "build"], check=True)

    async def run() -> None:
        home = new_master(root)
        await serve(home, root, root / "build")
        await Job(home, root).write("build/later", b"1").end()
        home.close()

    trio.run(run)
    assert areas(root) == []


def nobody_is_kept_from_unmounting(root: Path) -> None:
    mount_tmpfs(root / "build")
    fill(root)

    async def run() -> None:
        home = new_master(root)
        await serve(home, root, root / "build")
        await a_job(home, root).end()
        umount(root)
        home.drain()
        home.close()

    trio.run(run)


def a_mount_point_is_not_removed(root: Path) -> None:
    (root / "outer/inner").mkdir(parents=True)
    mount_tmpfs(root / "outer/inner")
    (root / "outer/inner/precious").write_bytes(b"1")

    async def run() -> None:
        home = new_master(root)
        await serve(home, root, root / "outer", root / "outer/inner")
        try:
            await Job(home, root).write("top", b"1").delete("outer").end()
        except FsError as error:
            assert error.errno == errno.EBUSY, error
        else:
            raise AssertionError("the mount was moved to the trash")
        assert contents(root) == {"outer/inner/precious": b"1"}
        home.close()

    trio.run(run)
    assert os.path.ismount(root / "outer/inner")


def a_rename_that_is_refused_all_the_same_is_a_copy(root: Path) -> None:
    """Publish where rename says EXDEV within one mount, as it does with a project quota."""
    fill(root)
    rename = disk_calls.rename

    def refuse(source: bytes, target: bytes, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{src_dir_fd}") != os.readlink(f"/proc/self/fd/{dst_dir_fd}"):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    async def run() -> None:
        home = new_master(root)
        await serve(home, root, root / "build")
        job = a_job(home, root)
        calls: Any = disk_calls
        calls.rename = refuse
        await job.end()
        assert contents(root) == AFTER and staged_names(root) == []
        home.close()

    trio.run(run)


def a_link_that_the_mount_refuses_is_another_entry(root: Path) -> None:
    """Publish names of a FIFO, a symlink and a file that are on the other side of a mount.

    A worker may also say that the FIFO is a file. Whoever opens it waits for a writer.
    """
    mount_tmpfs(root / "build")
    fifo, link = Attr(stat.S_IFIFO | 0o622, 0, 13 * NS), Attr(stat.S_IFLNK | 0o777, 3, 12 * NS, None, b"old")
    file = Attr(stat.S_IFREG | 0o640, 3, 11 * NS, digest_of(b"old"))

    async def run() -> None:
        home = new_master(root)
        await serve(home, root, root / "build")
        await Job(home, root).change("build/p", fifo).change("build/l", link).write("build/f", b"old").end()
        job = Job(home, root).change("p", fifo, link_to="build/p").change("l", link, link_to="build/l")
        await job.change("f", file, link_to="build/f").end()
        assert (root / "p").is_fifo() and stat.S_IMODE((root / "p").stat().st_mode) == 0o622
        assert os.readlink(root / "l") == "old" and (root / "l").lstat().st_mtime_ns == 12 * NS
        assert (root / "f").read_bytes() == b"old" and (root / "f").stat().st_mtime_ns == 11 * NS
        try:
            await Job(home, root).change("lie", file, link_to="build/p").end()
        except FsError as error:
            assert error.errno == errno.EINVAL, error
        else:
            raise AssertionError("a FIFO was copied")
        assert not (root / "lie").exists() and areas(root) == []
        home.close()

    with not_for_ever():
        trio.run(run)


def mounts_are_read_again_only_if_they_change(root: Path) -> None:
    mounts = WatchedMounts(tree_path(root))
    seen = [mounts.now(), mounts.now()]
    mount_tmpfs(root / "build")
    seen += [mounts.now(), mounts.now()]
    umount(root)
    seen += [mounts.now()]
    assert [one is next_one for one, next_one in pairwise(seen)] == [True, False, True, False]
    mounts.close()
    assert mounts.now() is not seen[-1]
    mounts.close()


if __name__ == "__main__":
    main()
