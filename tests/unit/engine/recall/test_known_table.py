"""Only commands whose tools are vouched for are known, and only if these tools really ran."""

from collections.abc import Mapping

import pytest

from termite.engine.decide.known_tools import KnownTool, ToolCall, Vouch
from termite.engine.recall.known.known_table import Known, KnownTable
from termite.engine.recall.look_up.evidence import NEW_SHAPE, Shape
from termite.engine.recall.look_up.stored_rows import RecordedResult, ResultRow
from tests.unit.engine.recall.known_commands import COMPILED_BY, DRIVER, SHELL_BY, TABLE, judge, reason
from tests.unit.tables import each_row

MOST_ENTRIES = 40
RESULT = RecordedResult((), (), 1, 2)


def test_the_table_is_short() -> None:
    assert len(TABLE.tools) <= MOST_ENTRIES


def test_a_compiler_is_known_with_all_that_it_executes() -> None:
    answer = judge("gcc", "-c", "x.c", "-o", "x.o")
    assert isinstance(answer, Known)
    assert answer.is_blind
    assert {"gcc 1", "cc1 1", "as 1"} <= set(answer.entries)
    row = ResultRow(b"", b"", b"", RESULT, known=answer.entries, is_known_blind=answer.is_blind)
    assert TABLE.still_vouches(row)
    assert TABLE.is_vouched_blind(row, NEW_SHAPE)
    assert not TABLE.is_vouched_blind(row, Shape(sees_times=True))
    assert not TABLE.is_vouched_blind(row, Shape(refused="it differed"))
    assert not TABLE.is_vouched_blind(ResultRow(b"", b"", b"", RESULT, known=answer.entries), NEW_SHAPE)


def test_an_entry_that_has_changed_vouches_no_more() -> None:
    known = judge("gcc", "-c", "x.c")
    assert isinstance(known, Known)
    old = TABLE.tools["cc1"]
    newer = KnownTool(old.name, old.called, old.marks, old.judge, old.programs, revision=2)
    others = [tool for name, tool in TABLE.tools.items() if name not in ("cc1", "shell", "builtins", "launcher")]
    row = ResultRow(b"", b"", b"", RESULT, known=known.entries, is_known_blind=True)
    for table in (KnownTable([*others, newer]), KnownTable(others)):
        assert not table.still_vouches(row)
        assert not table.is_vouched_blind(row, NEW_SHAPE)
    assert not TABLE.still_vouches(ResultRow(b"", b"", b"", RESULT))


@pytest.mark.parametrize(
    ("path", "content", "refusal"),
    [
        ("usr/bin/gcc", "#!/bin/sh\nCOLLECT_GCC_OPTIONS", "/usr/bin/gcc is not the gcc that the table knows"),
        ("opt/wrapper/gcc", "\x7fELF a wrapper", "/opt/wrapper/gcc is not the gcc that the table knows"),
        ("usr/bin/ccache", DRIVER, "the job executed /usr/bin/ccache, which its tools do not"),
        ("w/bin/gcc", DRIVER, "the program /w/bin/gcc is in the tree"),
        ("usr/bin/sed", "\x7fELFGNU sed", "the job executed /usr/bin/sed, which its tools do not"),
    ],
)
def test_only_the_tools_themselves_are_known(path: str, content: str, refusal: str) -> None:
    answer = judge("gcc", "-c", "x.c", tools=(path, *COMPILED_BY[1:]), programs={path: content})
    assert reason(answer) == refusal


def test_a_program_with_another_name_than_its_command_is_refused() -> None:
    assert reason(judge("gcc", "-c", "x.c", exe="/usr/bin/busybox")) != ""
    assert reason(judge("/usr/bin/gcc", "-c", "x.c", exe="gcc")) == ""


def test_a_trace_without_a_program_proves_nothing() -> None:
    assert reason(judge("gcc", "-c", "x.c", tools=())) == "the trace has no program"


@each_row("clock", ["__DATE__", "__TIME__", "__TIMESTAMP__"])
@each_row("path", ["w/x.c", "usr/include/deep/h.h", "w/liby.so"])
def test_a_clock_in_a_file_that_was_read_is_refused(clock: str, path: str) -> None:
    reads = {"w/x.c": "int x;", path: f"char *when = {clock};"}
    assert reason(judge("gcc", "-c", "x.c", reads=reads)) == f"{clock} is in /{path}"


def test_a_clock_does_not_matter_where_nothing_is_compiled() -> None:
    linked = ("usr/bin/x86_64-linux-gnu-gcc-12", "usr/bin/x86_64-linux-gnu-ld.bfd")
    assert reason(judge("gcc", "x.o", "-o", "x", tools=linked, reads={"w/x.o": "__DATE__"})) == ""
    assert reason(judge("gcc", "-c", "x.c", reads={"w/x.c": "", "usr/lib/libz.so.1.2": "__DATE__"})) == ""


def test_source_date_epoch_stops_two_of_the_clocks_of_gcc() -> None:
    env = {"SOURCE_DATE_EPOCH": "1"}
    assert reason(judge("gcc", "-c", "x.c", reads={"w/x.c": "__DATE__ __TIME__"}, env=env)) == ""
    assert reason(judge("gcc", "-c", "x.c", reads={"w/x.c": "__TIMESTAMP__"}, env=env)) != ""
    assert reason(judge("gcc", "-c", "x.c", reads={"w/x.c": "__DATE__"}, env={"SOURCE_DATE_EPOCH": ""})) != ""
    old = {"usr/bin/x86_64-linux-gnu-gcc-12": "\x7fELFCOLLECT_GCC_OPTIONS"}  # gcc 6 does not know the variable
    assert reason(judge("gcc", "-c", "x.c", reads={"w/x.c": "__DATE__"}, env=env, programs=old)) != ""


@pytest.mark.parametrize(
    "asked", [b"dev/urandom", b"proc/cpuinfo", b"proc/uptime", b"sys/devices/system/cpu/online", b"proc/self/stat"]
)
def test_what_asks_the_worker_is_refused(asked: bytes) -> None:
    assert reason(judge("gcc", "-c", "x.c", asked=[asked])) == f"the job asked /{asked.decode()}"


def test_a_link_into_proc_is_refused() -> None:
    answer = judge("cp", "u", "v", tools=("usr/bin/cp",), reads={"proc/uptime": "1"})
    assert reason(answer) == "the job asked /proc/uptime"


@each_row(
    ("env", "is_known"),
    [
        ({"HOME": "/x", "LANG": "de"}, True),
        ({"LD_PRELOAD": ""}, True),
        ({"LD_PRELOAD": "libfaketime.so"}, False),
        ({"LD_DEBUG": "files"}, False),
        ({"LD_LIBRARY_PATH": "/opt/lib:"}, True),
        ({"LD_LIBRARY_PATH": "/w/lib"}, False),
        ({"LD_LIBRARY_PATH": "lib"}, False),
        ({"COMPILER_PATH": "/x"}, False),
        ({"GCC_EXEC_PREFIX": "/x"}, False),
    ],
)
def test_an_environment_that_changes_the_tools_is_refused(env: Mapping[str, str], is_known: bool) -> None:
    assert (reason(judge("gcc", "-c", "x.c", env=env)) == "") is is_known


def executed(script: str) -> tuple[str, ...]:
    """Return the programs that a script executes."""
    others = (f"usr/bin/{name}" for name in ("sed", "cp", "termite") if f"{name} " in script or f'{name}"' in script)
    return (*SHELL_BY, *COMPILED_BY, *others)


@each_row(
    "script",
    [
        "gcc -c x.c",
        "exec gcc -c x.c",
        "cd a && gcc -c x.c && cp x.o y.o",
        "cd a; rm -f x.o; test -d b || exit 0; gcc -c x.c",
        ": && gcc -c x.c && :",
        "LC_ALL=C gcc -c x.c 2>/dev/null",
        '"/a b/termite" --cmake=compile --object=x.o -- gcc -c x.c',
        "echo CC x.o; gcc -c x.c -MF x.d",
        "sh -ec 'set -e; gcc -c x.c'",
        "gcc -c x.c && sed s/a/b/ x.in > y.c",
        "set -e; gcc -c x.c; cp x.o y.o",
        # Those of automake.
        "depbase=`echo x.o | sed 's|[^/]*$|.deps/&|;s|\\.o$||'`;\\\ngcc -MF $depbase.Tpo -c -o x.o x.c &&\\\n"
        "cp -f $depbase.Tpo $depbase.Po",
        "gcc -MT x.o -MD -MP -MF .deps/x.Tpo -c -o x.o `test -f 'x.c' || echo './'`x.c && cp .deps/x.Tpo .deps/x.Po",
    ],
)
def test_a_list_of_known_commands_is_known(script: str) -> None:
    assert reason(judge("/bin/sh", "-c", script, tools=executed(script))) == ""


@each_row(
    "script",
    [
        "gcc -c x.c && ./x",
        "gcc -c x.c; cp x.o y.o",
        "gcc -c x.c || exit 0",
        "gcc -c x.c; true",
        "sh -c 'gcc -c x.c' || true",
        "echo x > y; gcc x.o",
        "COMPILER_PATH=/x sh -c 'gcc -c x.c'",
        "gcc -c $F",
        "gcc -c x.c | cp a b",
        "GCC_EXEC_PREFIX=/x gcc -c x.c",
        "CC=gcc; gcc -c x.c",
        "cc=gcc; gcc -B$dir -c x.c",
        "x=`echo -n a | sed 's/a/b/'`; gcc -c $x",
        "x=`date`; gcc -c $x",
        "home=a; gcc -c x.c",
        "LD_PRELOAD=/opt/faketime.so gcc -c x.c",
        "LD_LIBRARY_PATH=lib exec gcc -c x.c",
        "COMPILER_PATH=/x : && gcc -c x.c",
        "sed s/a/b/ x.in > x.c && gcc -c x.c",
        "sed -i s/a/b/ x.c && gcc -c x.c",
        "> x.c; gcc -c x.c",
        "gcc -E x.c -o y.c; gcc -c y.c",
        "sh -c 'echo __DATE__ > y.c; gcc -c y.c'",
        "sh x.sh",
        "bash -x -c 'gcc -c x.c'",
        "cd -",
        "set -x; gcc -c x.c",
        "exec -a cc gcc -c x.c",
        "termite --exe=ccache gcc -c x.c",
        "ccache gcc -c x.c",
        "env gcc -c x.c",
    ],
)
def test_a_list_with_anything_else_is_refused(script: str) -> None:
    env = {"home": "/"}  # a variable that the commands get
    assert reason(judge("/bin/sh", "-c", script, tools=executed(script), env=env)) != ""
    assert "which its tools do not" not in reason(judge("/bin/sh", "-c", script, tools=executed(script)))


def test_a_list_that_is_not_simple_is_no_fault_of_an_entry() -> None:
    assert reason(judge("sh", "-c", "gcc -c $F", tools=executed(""))) == "the variable F"


def test_a_shell_with_functions_is_refused() -> None:
    for env in ({"BASH_ENV": "x"}, {"SHELLOPTS": "xtrace"}, {"BASH_FUNC_gcc%%": "() { date; }"}):
        assert reason(judge("bash", "-c", "gcc -c x.c", tools=executed(""), env=env)) != ""


@each_row(
    ("words", "messages", "is_known"),
    [
        ("-c x.c", b"x.c:3: warning: unused", True),
        ("-c x.c", b"/tmp/cc2cOV1i.s:4: Warning: w", False),
        ("x.c -o x", b"/usr/bin/ld: /var/tmp/ccXKP03N.o: in function main", False),
        ("x.c -o x", b"", True),
        ("-pipe -c x.c", b"x.c:3: warning: unused", False),
        ("-pipe -c x.c", b"", True),
    ],
)
def test_messages_with_random_names_are_refused(words: str, messages: bytes, is_known: bool) -> None:
    tools = (*COMPILED_BY, "usr/bin/x86_64-linux-gnu-ld.bfd")
    assert (reason(judge("gcc", *words.split(), tools=tools, messages=messages)) == "") is is_known


def test_a_result_for_one_machine_is_known_if_the_machine_is_in_the_key() -> None:
    assert reason(judge("gcc", "-march=native", "-c", "x.c")) == "the result holds for one kind of machine"
    assert reason(judge("gcc", "-march=native", "-c", "x.c", machine=b"a kind")) == ""


def test_an_ar_that_writes_times_is_known_only_with_d() -> None:
    old = {"usr/bin/ar": "\x7fELF use zero for timestamps and uids/gids"}
    assert reason(judge("ar", "rcs", "x.a", "x.o", tools=("usr/bin/ar",))) == ""
    assert reason(judge("ar", "rcs", "x.a", "x.o", tools=("usr/bin/ar",), programs=old)) != ""
    assert reason(judge("ar", "rcsD", "x.a", "x.o", tools=("usr/bin/ar",), programs=old)) == ""


@pytest.mark.parametrize(
    ("text", "read", "is_blind"),
    [
        ("ar rcs x.a y.o", "w/x.a", True),
        ("ar rcu x.a y.o", "w/x.a", False),
        ("ar rcu lib/x.a y.o", "w/lib/x.a", False),
        ("ar rcau z.o x.a y.o", "w/x.a", False),
        ("ar rcu x.a y.o", "w/y.o", True),
    ],
)
def test_times_matter_to_an_ar_that_updates_an_old_archive(text: str, read: str, is_blind: bool) -> None:
    answer = judge(*text.split(), tools=("usr/bin/ar",), reads={read: ""})
    assert isinstance(answer, Known)
    assert answer.is_blind is is_blind


def test_an_entry_that_fails_refuses_its_command() -> None:
    def fail(call: ToolCall) -> Vouch:
        raise ZeroDivisionError

    table = KnownTable([KnownTool("gcc", "gcc", (), fail)])
    assert "ZeroDivisionError" in reason(judge("gcc", "-c", "x.c", table=table))


def test_a_name_that_two_entries_know_is_refused() -> None:
    tools = [KnownTool(name, "gcc", ("GCC",), lambda call: Vouch()) for name in ("one", "two")]
    assert reason(judge("gcc", "-c", "x.c", table=KnownTable(tools))) == "gcc is not in the table"
    assert reason(judge("gcc", "-c", "x.c", table=KnownTable([tools[0], tools[0]]))) == "gcc is not in the table"


def test_a_mode_for_precompiled_headers_is_refused() -> None:
    for name in ("w/x.h.gch", "usr/lib/specs", "w/y.pch"):
        assert reason(judge("gcc", "-c", "x.c", reads={"w/x.c": "", name: ""})) == f"the job read /{name}"


def test_an_entry_with_a_bad_regexp_is_left_out() -> None:
    def vouch(call: ToolCall) -> Vouch:
        return Vouch(unwanted_messages="(")

    table = KnownTable([KnownTool("a", "(gcc", (), vouch), KnownTool("b", "b", (), vouch, programs="*")])
    assert reason(judge("gcc", "-c", "x.c", table=table)) == "gcc is not in the table"
    assert not {"a", "b"} & set(table.tools)
    assert [name for name, error in table.refused if error] == ["a", "b"]
    bad = KnownTable([KnownTool("gcc", "gcc", (), vouch)])
    assert "'(' is no regexp" in reason(judge("gcc", "-c", "x.c", table=bad))
