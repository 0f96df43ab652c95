"""Test what a job depends on: the rules, one by one."""

import dataclasses
import stat

import msgspec
import pytest

from termite.engine.model import Attr, Change
from termite.engine.recall.logic.dependencies import NotStorable, Obstacle, find_dependencies
from termite.engine.recall.logic.traced_paths import AccessKind, JobTrace
from termite.engine.recall.logic.tree_facts import FactsMissing, TreeFacts
from termite.engine.recall.logic.uses import Use, states
from tests.unit.engine.recall.recall_trees import (
    APPENDS,
    EXCL,
    EXEC,
    LIST,
    LSTAT,
    MKDIR,
    READ,
    STAT,
    TIMING,
    UNLINK,
    WRITES,
    NoInterpreters,
    access,
    directory,
    ended,
    file,
    found,
    link,
    made,
    tree_of,
    uses,
)
from tests.unit.tables import each_row

TREE = {
    b"bin": directory(),
    b"bin/sh": file("sh", 0o755),
    b"bin/gcc": file("gcc", 0o755),
    b"bin/cp": file("cp", 0o755),
    b"w/src": directory(),
    b"w/src/a.c": file("a"),
    b"w/out": directory(),
    b"w/out/old.o": file("old"),
    b"w/link": link(b"src"),
    b"w/far": link(b"/w/link/a.c"),
    b"w/loop": link(b"loop"),
    b"proc": directory(0o555),
}


def test_an_input_is_a_dependency_with_all_directories_on_its_way() -> None:
    assert uses(tree_of(TREE), [access(b"/w/src/a.c", READ)]) == {
        b"w": Use.ENTER,
        b"w/src": Use.ENTER,
        b"w/src/a.c": Use.READ,
    }


def test_symlinks_on_the_way_and_at_the_end_are_dependencies() -> None:
    expected = {b"w": Use.ENTER, b"w/src": Use.ENTER, b"w/link": Use.LINK, b"w/src/a.c": Use.READ}
    assert uses(tree_of(TREE), [access(b"/w/link/a.c", READ)]) == expected
    assert uses(tree_of(TREE), [access(b"/w/far", READ)]) == {**expected, b"w/far": Use.LINK}
    assert uses(tree_of(TREE), [access(b"/w/link", LSTAT)]) == {b"w": Use.ENTER, b"w/link": Use.LINK | Use.STAT}


def test_a_path_that_is_used_with_and_without_its_symlink_depends_on_both() -> None:
    both = uses(tree_of(TREE), [access(b"/w/link", LSTAT, STAT)])
    assert both == {b"w": Use.ENTER, b"w/link": Use.LINK | Use.STAT, b"w/src": Use.STAT}


def test_a_moved_file_is_another_one_if_it_has_further_names() -> None:
    one, two = (tree_of({**TREE, b"w/t": file("t", nlink=names)}) for names in (1, 2))
    move = access(b"/w/t", UNLINK | AccessKind.MOVED)
    changes = [Change(b"w/t", None)]
    path_set = found(one, [move], changes).path_set
    states_of = [states(path_set, TreeFacts(tree), with_times=False) for tree in (one, two)]
    assert states_of[0] != states_of[1]
    with pytest.raises(NotStorable) as refused:
        found(two, [move], changes)
    assert (refused.value.obstacle, refused.value.detail) == (Obstacle.HIDDEN, b"/w/t")


def test_parent_components_are_followed_as_the_kernel_does() -> None:
    tree = tree_of({**TREE, b"w/deep": directory(), b"w/deep/in": directory(), b"w/short": link(b"deep/in")})
    there = uses(tree, [access(b"/w/short/../x", READ)])
    assert there[b"w/deep/x"] == Use.ABSENT
    assert b"w/x" not in there


def test_a_loop_of_symlinks_ends() -> None:
    assert uses(tree_of(TREE), [access(b"/w/loop/x", READ)]) == {b"w": Use.ENTER, b"w/loop": Use.LINK}
    assert b"w/loop" in uses(tree_of(TREE), [access(b"/w/loop", READ)])


def test_the_first_missing_name_is_a_dependency_and_nothing_below_it() -> None:
    assert uses(tree_of(TREE), [access(b"/w/none/a/b", READ)]) == {b"w": Use.ENTER, b"w/none": Use.ABSENT}
    assert uses(tree_of(TREE), [access(b"/w/none", READ)]) == {b"w": Use.ENTER, b"w/none": Use.ABSENT}
    below_file = uses(tree_of(TREE), [access(b"/w/src/a.c/x", READ)])
    assert below_file == {b"w": Use.ENTER, b"w/src": Use.ENTER, b"w/src/a.c": Use.TYPE}


@each_row(
    ("kind", "use"),
    [
        (READ, Use.READ),
        (EXEC, Use.READ | Use.EXEC),
        (STAT, Use.STAT),
        (AccessKind.ACCESS, Use.MODE),
        # A file that is made again with its content and its time has no change either.
        (AccessKind.META, Use.MODE | Use.WHOLE | Use.TIME),
        (AccessKind.MAKE | AccessKind.NOFOLLOW, Use.MODE | Use.WHOLE | Use.TIME),
        (UNLINK, Use.WHOLE | Use.TIME),
        (AccessKind.WRITE, Use.READ | Use.MODE),
        (AccessKind.OPATH, Use.READ | Use.MODE),
        (AccessKind.READLINK | AccessKind.NOFOLLOW, Use.LINK),
        (AccessKind.MOVED | AccessKind.NOFOLLOW, Use.WHOLE | Use.TIME),
    ],
)
def test_an_access_that_changed_nothing_is_an_input_of_its_kind(kind: AccessKind, use: Use) -> None:
    assert uses(tree_of(TREE), [access(b"/w/src/a.c", kind)])[b"w/src/a.c"] == use


def test_a_creation_that_changed_nothing_has_failed_or_found_it_there() -> None:
    there = uses(tree_of(TREE), [access(b"/w/out/old.o", EXCL), access(b"/w/src", MKDIR)])
    assert there[b"w/out/old.o"] == Use.MODE
    assert there[b"w/src"] == Use.MODE
    assert there[b"w/out"] == Use.ENTER | Use.FILL


def test_a_new_output_needs_a_place_where_a_file_is_overwritten() -> None:
    there = uses(tree_of(TREE), [access(b"/w/out/new.o", WRITES)], [made(b"w/out/new.o")])
    assert there == {b"w": Use.ENTER, b"w/out": Use.ENTER | Use.FILL, b"w/out/new.o": Use.FRESH}


def overwritten(before: Attr | None) -> tuple[object, ...]:
    """Return the state of the place of an output of mode 0644 if this is there."""
    path_set = found(tree_of(TREE), [access(b"/w/out/new.o", WRITES)], [made(b"w/out/new.o")]).path_set
    tree = tree_of({**TREE, **({} if before is None else {b"w/out/new.o": before})})
    return states(path_set, TreeFacts(tree), with_times=True)[-1]


def test_a_place_is_as_good_as_free_if_overwriting_it_leaves_no_trace() -> None:
    free = overwritten(None)
    assert overwritten(file("other", mtime_ns=5)) == free
    for before in (file("x", 0o444), file("x", 0o755), file("x", nlink=2), link(b"old.o"), directory()):
        assert overwritten(before) != free


def test_it_matters_who_may_pass_a_directory_and_for_outputs_who_may_change_it() -> None:
    path_set = found(tree_of(TREE), [access(b"/w/src/a.c", READ), access(b"/w/out/n", WRITES)], [made(b"w/out/n")])

    def state(out: int, src: int) -> object:
        tree = tree_of({**TREE, b"w/out": directory(out), b"w/src": directory(src)})
        return states(path_set.path_set, TreeFacts(tree), with_times=True)

    assert state(0o755, 0o755) == state(0o755, 0o577)
    assert state(0o755, 0o755) != state(0o755, 0o644)
    assert state(0o755, 0o755) != state(0o555, 0o755)
    assert state(0o755, 0o755) != state(0o2755, 0o755)


@each_row(
    ("first", "use"),
    [
        (WRITES, Use.FRESH | Use.TYPE),
        (READ, Use.WHOLE),
        (APPENDS, Use.WHOLE),
        (AccessKind.META, Use.WHOLE),
        (STAT, Use.STAT),
        (AccessKind.ACCESS, Use.STAT),
        (UNLINK, Use.TYPE),
        (MKDIR, Use.TYPE),
    ],
)
def test_the_first_use_of_an_output_decides_how_its_old_state_matters(first: AccessKind, use: Use) -> None:
    there = uses(tree_of(TREE), [access(b"/w/out/old.o", first)], [made(b"w/out/old.o")])
    assert there[b"w/out/old.o"] & ~Use.STAT == use & ~Use.STAT


def test_an_output_that_was_looked_at_and_then_changed_in_place_matters_whole() -> None:
    there = uses(tree_of(TREE), [access(b"/w/out/old.o", STAT, AccessKind.WRITE)], [made(b"w/out/old.o")])
    assert there[b"w/out/old.o"] == Use.WHOLE | Use.STAT


def test_an_output_that_could_not_be_removed_first_matters_whole() -> None:
    appended = access(b"/w/out/old.o", UNLINK, APPENDS)
    assert uses(tree_of(TREE), [appended], [made(b"w/out/old.o")])[b"w/out/old.o"] == Use.TYPE
    closed = tree_of({**TREE, b"w/out": directory(0o555)})
    assert uses(closed, [appended], [made(b"w/out/old.o")])[b"w/out/old.o"] == Use.WHOLE


def test_what_was_moved_lives_on_with_its_mode_and_time() -> None:
    move = access(b"/w/out/old.o", UNLINK | AccessKind.MOVED)
    gone = Change(b"w/out/old.o", None)
    there = uses(tree_of(TREE), [move, access(b"/w/out/n", MKDIR)], [gone, made(b"w/out/n")])
    assert there[b"w/out/old.o"] == Use.WHOLE | Use.TIME
    assert there[b"w/out/n"] == Use.TYPE


def test_the_time_of_an_output_matters_only_if_it_is_kept() -> None:
    old = file("old")
    kept = Change(b"w/out/old.o", msgspec.structs.replace(old, mode=stat.S_IFREG | 0o755), content=False)
    meta = access(b"/w/out/old.o", AccessKind.META)
    assert uses(tree_of(TREE), [meta], [kept])[b"w/out/old.o"] == Use.WHOLE | Use.TIME
    assert uses(tree_of(TREE), [access(b"/w/out/old.o", APPENDS)], [made(b"w/out/old.o")])[b"w/out/old.o"] == Use.WHOLE


def test_a_file_that_kept_its_mode_is_not_as_good_as_one_that_was_absent() -> None:
    old, new = b"w/out/old.o", tree_of({path: attr for path, attr in TREE.items() if path != b"w/out/old.o"})
    for before, is_same in ((tree_of(TREE), False), (new, True)):
        path_set = found(before, [access(b"/" + old, WRITES)], [made(old)]).path_set
        there, absent = (states(path_set, TreeFacts(tree), with_times=False) for tree in (tree_of(TREE), new))
        assert (there == absent) is is_same


def test_compilers_overwrite_what_they_have_looked_at() -> None:
    accesses = [access(b"/bin/gcc", EXEC), access(b"/w/out/old.o", STAT, WRITES)]
    assert uses(tree_of(TREE), accesses, [made(b"w/out/old.o")], [b"gcc"])[b"w/out/old.o"] == Use.FRESH | Use.TYPE
    with_shell = [access(b"/bin/sh", EXEC), *accesses]
    assert uses(tree_of(TREE), with_shell, [made(b"w/out/old.o")], [b"sh"])[b"w/out/old.o"] == Use.STAT


@pytest.mark.parametrize(("option", "is_plain"), [(b"-f", True), (b"-n", False), (b"-u", False), (b"-nf", False)])
def test_a_copy_may_depend_on_its_target(option: bytes, is_plain: bool) -> None:
    accesses = [access(b"/bin/cp", EXEC), access(b"/w/out/old.o", STAT, WRITES)]
    there = uses(tree_of(TREE), accesses, [made(b"w/out/old.o")], [b"cp", option, b"a", b"b"])
    assert (there[b"w/out/old.o"] == Use.FRESH | Use.TYPE) is is_plain


def test_an_output_that_no_access_names_matters_whole() -> None:
    there = uses(tree_of(TREE), [], [made(b"w/out/old.o"), made(b"w/out/new.o")])
    assert there[b"w/out/old.o"] == Use.WHOLE | Use.TIME
    assert there[b"w/out/new.o"] == Use.TYPE


def test_the_directory_of_a_job_is_a_dependency() -> None:
    job = dataclasses.replace(ended([]), cwd=b"/w/link")
    path_set = find_dependencies(job, TreeFacts(tree_of(TREE))).path_set
    there = {one.path: Use(one.use) for one in path_set.dependencies}
    assert there == {b"w": Use.ENTER, b"w/link": Use.LINK, b"w/src": Use.ENTER}


def test_a_listing_does_not_depend_on_the_jobs_own_names() -> None:
    accesses = [access(b"/w/out/new.o", WRITES), access(b"/w/out", LIST)]
    path_set = found(tree_of(TREE), accesses, [made(b"w/out/new.o")]).path_set
    (listed,) = [one for one in path_set.dependencies if one.use & Use.LIST]
    assert listed.own == (b"new.o",)
    before = states(path_set, TreeFacts(tree_of(TREE)), with_times=True)
    after = states(path_set, TreeFacts(tree_of({**TREE, b"w/out/new.o": file("made")})), with_times=True)
    other = states(path_set, TreeFacts(tree_of({**TREE, b"w/out/b.o": file()})), with_times=True)
    assert before == after != other


def test_a_listing_shows_an_output_that_was_made_after_it() -> None:
    accesses = [access(b"/w/out", LIST), access(b"/w/out/new.o", WRITES)]
    there = uses(tree_of(TREE), accesses, [made(b"w/out/new.o")])
    assert there[b"w/out/new.o"] == Use.FRESH | Use.TYPE


def test_a_removed_directory_must_have_the_same_names() -> None:
    there = uses(tree_of(TREE), [access(b"/w/out", UNLINK)], [Change(b"w/out", None)])
    assert there[b"w/out"] & (Use.TYPE | Use.LIST) == Use.TYPE | Use.LIST
    failed = uses(tree_of(TREE), [access(b"/w/out", UNLINK)])
    assert failed[b"w/out"] & Use.LIST


def test_a_new_mode_or_time_of_a_directory_is_no_output() -> None:
    changes = [made(b"w/out/new.o"), Change(b"w/out", directory(), content=False)]
    there = uses(tree_of(TREE), [access(b"/w/out", STAT), access(b"/w/out/new.o", WRITES)], changes)
    assert there[b"w/out"] == Use.STAT | Use.ENTER | Use.FILL


def test_random_names_that_are_gone_are_left_out_with_all_below_them() -> None:
    accesses = [
        access(b"/w/out/ccAb12cD.s", EXCL),
        access(b"/w/out/tmpQ7xR2p", MKDIR),
        access(b"/w/out/tmpQ7xR2p/inside", WRITES),
    ]
    assert uses(tree_of(TREE), accesses) == {b"w": Use.ENTER, b"w/out": Use.ENTER | Use.FILL}


def test_a_lock_is_a_dependency_though_it_is_gone() -> None:
    assert uses(tree_of(TREE), [access(b"/w/out/lock", EXCL)])[b"w/out/lock"] == Use.ABSENT
    assert uses(tree_of(TREE), [access(b"/w/out/build.lock", MKDIR)])[b"w/out/build.lock"] == Use.ABSENT


def test_the_interpreters_of_programs_are_dependencies() -> None:
    script, shell, loader = file("#!/bin/link2", 0o755), file("sh", 0o755), file("ld", 0o755)
    tree = tree_of({**TREE, b"w/run": script, b"bin/link2": link(b"sh"), b"bin/ld.so": loader})
    assert script.digest and shell.digest and loader.digest
    interpreters = {
        script.digest.sha256: b"/bin/link2",
        shell.digest.sha256: b"/bin/ld.so",
        loader.digest.sha256: b"",
    }
    job = ended([access(b"/w/run", EXEC)])
    of_job = find_dependencies(job, TreeFacts(tree, interpreters))
    path_set = of_job.path_set
    assert of_job.tools == (b"w/run", b"bin/sh")  # the loader does nothing of its own
    there = {one.path: Use(one.use) for one in path_set.dependencies}
    assert there[b"bin/link2"] == Use.LINK
    assert there[b"bin/sh"] == there[b"bin/ld.so"] == Use.READ | Use.EXEC
    with pytest.raises(FactsMissing) as missing:
        find_dependencies(job, TreeFacts(tree, {}))
    assert missing.value.heads == {(b"w/run", script.digest.sha256)}
    with pytest.raises(NotStorable, match="relative"):
        find_dependencies(job, TreeFacts(tree, {script.digest.sha256: b"run.sh"}))


def test_a_loader_that_a_linker_reads_was_not_executed() -> None:
    program, loader = file("ELF", 0o755), file("ld", 0o755)
    tree = tree_of({**TREE, b"bin/cc": program, b"bin/ld.so": loader})
    assert program.digest and loader.digest
    interpreters = {program.digest.sha256: b"/bin/ld.so", loader.digest.sha256: b""}
    job = ended([access(b"/bin/cc", EXEC), access(b"/bin/ld.so", READ)])
    assert find_dependencies(job, TreeFacts(tree, interpreters)).tools == (b"bin/cc",)
    job = ended([access(b"/bin/cc", EXEC), access(b"/bin/ld.so", EXEC)])
    assert find_dependencies(job, TreeFacts(tree, interpreters)).tools == (b"bin/cc", b"bin/ld.so")


def test_a_program_that_the_job_made_counts_as_a_tool() -> None:
    ran = access(b"/w/out/run", WRITES, EXEC)
    of_job = found(tree_of(TREE), [ran, access(b"/bin/none", EXEC)], [made(b"w/out/run", file("#!/bin/sh", 0o755))])
    assert of_job.tools == (b"w/out/run",)


def test_missing_facts_are_asked_for_all_at_once() -> None:
    unknown = msgspec.structs.replace(file("long"), digest=None)
    tree = tree_of({**TREE, b"w/tool": unknown, b"w/more": directory()}, unserved=[b"w/src", b"w/more"])
    accesses = [access(b"/w/src/a.c", READ), access(b"/w/more/b", READ), access(b"/w/tool", EXEC)]
    with pytest.raises(FactsMissing) as missing:
        found(tree, accesses)
    assert missing.value.directories == {b"w/src", b"w/more"}
    assert missing.value.contents == {b"w/tool"}


def test_files_of_the_sandbox_are_no_dependencies_but_are_named() -> None:
    accesses = [access(b"/proc/cpuinfo", READ), access(b"/dev/null", READ), access(b"/proc/self/fd/3", READ)]
    all_of_it = found(tree_of(TREE), accesses)
    assert [one.path for one in all_of_it.path_set.dependencies] == [b"w"]  # the directory of the job
    assert all_of_it.asked == (b"proc/cpuinfo", b"dev/null", b"proc/self/fd/3")


@pytest.mark.parametrize("path", [b"/proc/self/cwd/a.c", b"/proc/7/root/w/x", b"/proc/self/fd/3/x", b"/dev/../w/x"])
def test_a_path_through_a_process_cannot_be_followed(path: bytes) -> None:
    with pytest.raises(NotStorable) as refused:
        found(tree_of(TREE), [access(path, READ)])
    assert refused.value.obstacle is Obstacle.HIDDEN


def test_a_trace_with_gaps_or_lost_calls_is_of_no_use() -> None:
    for trace, obstacle in ((JobTrace((), ("mount",)), Obstacle.GAP), (JobTrace((), lost=1), Obstacle.LOST)):
        job = ended([])
        with pytest.raises(NotStorable) as refused:
            find_dependencies(dataclasses.replace(job, trace=trace), TreeFacts(tree_of(TREE)))
        assert refused.value.obstacle is obstacle


def test_a_time_that_a_command_set_is_noticed() -> None:
    def has_set_times(attr: Attr) -> bool:
        return found(tree_of(TREE), [access(b"/w/out/old.o", WRITES)], [made(b"w/out/old.o", attr)]).has_set_times

    assert not has_set_times(file("x", mtime_ns=TIMING.started_ns + 5))
    assert not has_set_times(file("x", mtime_ns=file().mtime_ns))  # the one that it had
    assert has_set_times(file("x", mtime_ns=5))


def test_the_names_by_which_programs_were_executed_are_kept() -> None:
    tree = {b"bin": directory(), b"bin/busybox": file("box", 0o755), b"bin/date": link(b"busybox")}
    found = find_dependencies(ended([access(b"/bin/date", EXEC)]), TreeFacts(tree_of(tree), NoInterpreters()))
    assert (found.tools, found.called) == ((b"bin/busybox",), (b"bin/date",))


@pytest.mark.parametrize(("first", "expected"), [(APPENDS, Use.WHOLE), (STAT, Use.WHOLE | Use.STAT)])
def test_a_file_to_which_a_compiler_appends_matters_whole(first: AccessKind, expected: Use) -> None:
    accesses = [access(b"/bin/gcc", EXEC), access(b"/w/out/old.o", first, APPENDS)]
    tree = tree_of(TREE)
    found = find_dependencies(ended(accesses, [made(b"w/out/old.o")]), TreeFacts(tree, NoInterpreters()))
    (use,) = (one.use for one in found.path_set.dependencies if one.path == b"w/out/old.o")
    assert use == expected
