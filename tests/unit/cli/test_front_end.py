"""The front ends read a build tool's command line, and choose what to do before a build."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from termite.cli.build_commands.build import run_build
from termite.cli.build_commands.cmake import CmakeCall, build_directory, read_mode, run_cmake
from termite.cli.build_commands.front_end import read_words, run_tool
from termite.cli.build_commands.make import MAKE
from termite.cli.build_commands.ninja import NINJA
from termite.cli.build_commands.summary_lines import MISSES, place_lines, summary_parts
from termite.cli.client import choose_root
from termite.cli.subcommands.builds.why import without_launcher
from termite.engine.errors import Reason, UserError
from termite.engine.recall.look_up.differences import MissCause
from termite.engine.status.report import Counters, build_summary
from tests.unit.tables import each_row


@each_row(
    ("args", "words"),
    [
        ((), ("", False)),
        (("-j20", "all"), ("", False)),
        (("-C", "sub", "-f", "n"), ("sub", False)),
        (("-Csub", "--directory=deeper"), ("sub/deeper", False)),
        (("--directory", "sub"), ("sub", False)),
        (("-kC", "sub"), ("sub", False)),
        (("-n",), ("", True)),
        (("-kn",), ("", True)),
        (("--question", "x"), ("", True)),
        (("-f", "-n"), ("", False)),
        (("-jn",), ("", False)),
        (("--", "-n"), ("", False)),
        (("--version",), ("", True)),
        (("CFLAGS=-n",), ("", False)),
    ],
)
def test_a_make_command_line_is_read_as_make_reads_it(args: tuple[str, ...], words: tuple[str, bool]) -> None:
    assert read_words(MAKE, args) == words


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("-C", "out", "-j", "4"), ("out", False)),
        (("-n",), ("", True)),
        (("-t", "clean"), ("", True)),
        (("-dexplain", "-vn"), ("", True)),
        (("-j", "-n"), ("", False)),
    ],
)
def test_a_ninja_command_line_is_read_as_ninja_reads_it(args: tuple[str, ...], words: tuple[str, bool]) -> None:
    assert read_words(NINJA, args) == words


def test_a_build_far_from_where_it_was_started_does_not_make_everything_writable() -> None:
    assert choose_root(Path("/nowhere/project"), Path("/somewhere"), env={}) == Path("/nowhere/project")


@each_row(
    ("args", "mode"),
    [
        ((), CmakeCall.OTHER),
        (("-S", ".", "-B", "build", "-G", "Ninja"), CmakeCall.CONFIGURE),
        (("--preset", "dev"), CmakeCall.CONFIGURE),
        ((".", "-LA"), CmakeCall.CONFIGURE),
        (("--build", "build", "-j4"), CmakeCall.BUILD),
        (("--workflow", "--preset", "dev"), CmakeCall.BUILD),
        (("--install", "build"), CmakeCall.OTHER),
        (("-E", "env", "cmake", "--build", "x"), CmakeCall.OTHER),
        (("-DA=b", "-P", "script.cmake"), CmakeCall.OTHER),
        (("--help-command", "project"), CmakeCall.OTHER),
        (("--version",), CmakeCall.OTHER),
    ],
)
def test_what_a_call_of_cmake_does_is_read_as_cmake_reads_it(args: tuple[str, ...], mode: CmakeCall) -> None:
    assert read_mode(args) is mode


def test_the_build_directory_of_cmake_is_the_word_after_build() -> None:
    assert build_directory(("--build", "out", "-j4")) == "out"
    assert build_directory(("--build", "--preset", "dev")) == ""


def test_a_line_that_begins_with_the_launcher_is_explained_without_it() -> None:
    assert without_launcher(["gcc", "--version"]) == (["gcc", "--version"], {})
    assert without_launcher(["/x/termite", "--cmake=link", "--", "--odd"]) == (["--odd"], {"cmake": "link"})
    assert without_launcher(["termite", "gcc", "--a=b"]) == (["gcc", "--a=b"], {})
    assert without_launcher(["termite"]) == (["termite"], {})


def test_a_summary_says_why_jobs_were_not_done_by_a_worker_wherever_they_ran() -> None:
    counters = Counters(moved=1, repeated=2, retries=Counter({Reason.CONNECTION_LOST: 4}))
    counters.fallbacks, counters.failed, counters.sockets_left = Counter({Reason.NO_WORKER: 2}), 2, 1
    end = build_summary(counters)
    assert summary_parts(end) == [
        "0 jobs ran on workers, 0 on this machine (0 short, 0 by rule)",
        "2 not run by a worker: no worker is available",
        "given to another worker: 1",
        "run again on the same worker: 2",
        "sockets that stayed on workers: 1",
        "could not be run: 2",
    ]


def test_a_summary_counts_commands_that_ran_again_because_an_input_had_changed() -> None:
    end = build_summary(Counters(remote=3, retries=Counter({Reason.INPUT_CHANGED: 2})))
    assert summary_parts(end)[1:] == ["failed and run again because an input had changed: 2"]


@pytest.mark.parametrize("run", [lambda words: run_tool(MAKE, words), lambda words: run_cmake(words)])
def test_a_misspelt_flag_of_our_own_is_refused(run: Callable[[list[str]], int]) -> None:
    with pytest.raises(UserError, match="no flag --termite-hlp: write --termite-help"):
        run(["-j", "--termite-hlp", "all"])
    assert run(["all", "--termite-help"]) == 0


def test_a_misspelt_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("termite.cli.build_commands.build.is_there", lambda name: name == "cargo")
    with pytest.raises(UserError, match="carg is not in your PATH: write cargo"):
        run_build(["carg", "build"])


def test_termite_build_without_a_tool_is_called_wrongly(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="which build tool"):
        run_build([])
    assert capsys.readouterr().out == ""


def test_the_summary_names_places_outside_the_tree_and_first_those_of_many_commands() -> None:
    end = {
        "outside": [
            {"place": "/srv/x", "count": 12, "is_many": True, "rule": '{"Regexp": "/srv/x", "Local": true}'},
            {"place": "/srv/y", "count": 11, "is_many": True, "rule": ""},
            {"place": "/srv/z", "count": 1, "is_many": False, "rule": ""},
        ],
        "private": [
            {"place": "/root/a", "count": 9, "is_many": True},
            {"place": "/root/b", "count": 1, "is_many": False},
        ],
    }
    outside = "ran on this machine because of writes outside the tree, in"
    private, shown = "ran on this machine because of private paths, in", "termite-master -export shows them to workers"
    many, few = place_lines(end)
    assert many == [
        f"12 commands {outside} /srv/x; a rule for .termite-localrc that spares the vain runs: "
        '[{"Regexp": "/srv/x", "Local": true}]',
        f"11 commands {outside} /srv/y; a Local rule for them in .termite-localrc spares the vain runs",
        f"9 commands {private} /root/a; {shown}",
    ]
    assert few == [f"1 command {outside} /srv/z", f"1 command {private} /root/b; {shown}"]
    assert place_lines({}) == ([], [])


def test_the_summary_never_advises_to_export_a_whole_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for place, is_whole in ("/home/me", True), ("/home", True), ("/home/me/lib", False):
        _, (line,) = place_lines({"private": [{"place": place, "count": 1, "is_many": False}]})
        assert ("a directory of its own" in line, "-export" in line) == (is_whole, not is_whole)


def test_what_ran_here_for_a_place_is_no_further_part_of_the_summary() -> None:
    counters = Counters(remote=1, local=3)
    counters.tied = Counter({Reason.WRITES_OUTSIDE: 1, Reason.NAMES_PRIVATE: 1})
    counters.fallbacks = Counter({Reason.WRITES_OUTSIDE: 1})
    assert summary_parts(build_summary(counters)) == ["1 job ran on workers, 3 on this machine (0 short, 0 by rule)"]


def test_the_summary_has_the_results_of_earlier_runs_and_the_commonest_reasons_without_one() -> None:
    counters = Counters(remote=9, cached=4, misses=Counter(never=5, content=2, shadow=1, tool=1))
    (line,) = summary_parts(build_summary(counters))
    missed = "9 not found: 5 not run before, 2 with another input, 1 with a file that came or went"
    assert line.endswith(f", results of earlier runs: 4 ({missed})")
    assert MISSES.keys() == set(MissCause)
    (line,) = summary_parts(build_summary(Counters(cached=4)))
    assert line.endswith(", results of earlier runs: 4")
