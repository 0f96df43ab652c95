""".termite-localrc decides what runs here; `termite-ctl why` names the rule."""

from collections.abc import Iterator

import pytest

from termite.engine.errors import Reason
from tests.e2e.cluster import Tree, cluster, embedded, new_tree
from tests.e2e.conftest import USERS, MakePlace

RULES = """# comments start a line
// either way
[{"Regexp": "^here ", "Local": true},
 {"regexp": "stays", "local": true, "skiprefresh": true},
 {"Regexp": ".*", "Local": false}]
"""


@pytest.fixture(scope="module")
def ruled(make_place: MakePlace) -> Iterator[Tree]:
    with make_place("ordinary") as where, embedded(new_tree(where)) as tree:
        yield tree


def counts(tree: Tree) -> tuple[int, int]:
    jobs = tree.status()["jobs"]
    return jobs["remote"], jobs["local"]


def test_without_a_file_everything_but_recursive_make_is_remote(ruled: Tree) -> None:
    (ruled.path / ".termite-localrc").unlink(missing_ok=True)
    for command, verdict in (
        ("gcc -c x.c", b"remote"),
        ("cd x && termite-make -j2", b"local"),
        ("make -C y", b"local"),
    ):
        assert verdict in ruled.ctl("why", "sh", "-c", command).stdout, command


def test_the_first_matching_rule_decides_and_why_names_it(ruled: Tree) -> None:
    ruled.write(".termite-localrc", RULES)
    why = ruled.ctl("why", "here", "we", "are")
    assert (why.code, b"local" in why.stdout, b"^here " in why.stdout) == (0, True, True), why
    assert b".termite-localrc" in why.stdout
    assert b"remote" in ruled.ctl("why", "there").stdout


def test_a_local_command_runs_here_and_its_changes_are_seen(ruled: Tree) -> None:
    ruled.write(".termite-localrc", '[{"Regexp": "LOCAL", "Local": true}]')
    remote, local = counts(ruled)
    assert ruled.termite("cat", "made").code == 1
    assert ruled.termite("sh", "-c", "echo by hand >made # LOCAL").code == 0
    assert ruled.termite("cat", "made").stdout == b"by hand\n"
    assert counts(ruled) == (remote + 2, local + 1)


def test_a_local_command_behaves_as_always(ruled: Tree) -> None:
    ruled.write(".termite-localrc", '[{"Regexp": "LOCAL", "Local": true}]')
    for script in (
        "cat; exit 7 # LOCAL",
        "kill -TERM $$ # LOCAL",
        "pwd; umask; echo e >&2 # LOCAL",
        "env | sort # LOCAL",
    ):
        assert ruled.termite("sh", "-c", script, stdin=b"in") == ruled.plain("sh", "-c", script, stdin=b"in")


def test_the_file_is_read_again_when_it_changes(ruled: Tree) -> None:
    for verdict, local in ((b"local", "true"), (b"remote", "false"), (b"local", "true")):
        ruled.write(".termite-localrc", f'[{{"Regexp": "^thing", "Local": {local}}}]')
        assert verdict in ruled.ctl("why", "thing").stdout


def test_a_bad_file_is_reported_with_entry_and_reason_and_the_last_good_one_stays(ruled: Tree) -> None:
    ruled.write(".termite-localrc", '[{"Regexp": "^thing", "Local": true}]')
    assert b"local" in ruled.ctl("why", "thing").stdout
    ruled.write(".termite-localrc", '[{"Regexp": "fine"}, {"Regexp": "(", "Local": true}]')
    why = ruled.ctl("why", "thing")
    assert b"local" in why.stdout
    told = why.stdout + why.stderr
    assert b".termite-localrc" in told
    assert b"entry 2" in told
    assert b"Traceback" not in told
    ran = ruled.termite("echo", "goes on")
    assert (ran.code, ran.stdout) == (0, b"goes on\n")


def test_a_key_that_is_misspelt_during_a_build_is_said_once_and_changes_nothing(ruled: Tree) -> None:
    ruled.write(".termite-localrc", '[{"Regexp": "^thing", "Local": true}]')
    ruled.write(
        "Makefile",
        "all:\n"
        '\t@printf \'[{"Regexp": "a"}, {"Regexp": "^thing", "Networ": true}]\' >.termite-localrc\n'
        "\t@echo one\n\t@echo two\n",
    )
    built = ruled.make()
    line = b".termite-localrc: entry 2: there is no key Networ: write Network; the last good rules stay in force\n"
    assert (built.code, built.stdout, built.stderr.count(line)) == (0, b"one\ntwo\n", 1), built
    assert b"local" in ruled.ctl("why", "thing").stdout


@pytest.mark.parametrize(("flags", "is_remote"), [((), False), (("-network", "allow"), True)], ids=["default", "allow"])
@pytest.mark.parametrize("user", USERS)
def test_a_command_with_the_network_runs_here_unless_a_worker_allows_it(
    make_place: MakePlace, flags: tuple[str, ...], is_remote: bool, user: str
) -> None:
    with make_place(user) as where:
        tree = new_tree(where)
        tree.write(".termite-localrc", '[{"Regexp": "asks", "Network": true}]')
        with cluster(tree, []) as small:
            small.add_worker(where, "w1", "-jobs", "2", *flags)
            small.wait_for_workers(1)
            done = tree.termite("echo", "asks")
            assert (done.code, done.stdout) == (0, b"asks\n"), done
            assert (Reason.NETWORK_DENIED.words.encode() in done.stderr) is not is_remote
            assert tree.jobs() == is_remote
            assert tree.termite("echo", "next").stdout == b"next\n"
            assert tree.jobs() == is_remote + 1, "the worker that refused one job is still used"
