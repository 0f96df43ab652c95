"""Test a part of the table of commands: the pairs in which each rule of the dependencies matters.

The whole table takes minutes: `python -m tests.edge.engine.recall.command_table`.
"""

from collections.abc import Iterator

import pytest

from tests.edge.engine.recall.command_table import Table
from tests.edge.engine.recall.table_commands import COMMANDS, MUTATIONS

# By command: mutations after which its result may be used, and those after which it may not.
PAIRS = {
    "cat src/*.c > out/all": (["unrelated", "new .o"], ["edit f.c", "new .c", "del g.c", "output ro", "outputs 755"]),
    "echo new >> log": (["outputs there"], ["log mode", "log"]),
    "sed -i s/one/uno/ t1": (["touch t1"], ["ro t1", "edit t1"]),
    "test -e out/x || echo made > out/x": (["lock"], ["outputs there"]),
    "mv t1 out/moved": (["edit t2"], ["ro t1"]),
    "mkdir -p out/d/e && cat tl > out/d/e/f": ([], ["relink tl", "out/d file"]),
    "./gen.sh > out/gen": (["nothing"], ["gen.sh", "gen.sh -x", "out a link"]),
    "ls inc2 > out/list": (["outputs there"], ["new .h", "outputs linked"]),
    "[ t1 -nt t2 ] && echo newer > out/newer; true": ([], ["touch t1"]),
    "if mkdir out/lock 2>/dev/null; then echo got > out/r; rmdir out/lock; else echo busy > out/r; fi": ([], ["lock"]),
    "realpath inc3/a.h > out/rp": ([], ["relink inc3", "inc2 moved"]),
    "cat < t1 > t1.new && mv t1.new t1": (["same bytes"], ["ro t1"]),
    "ls out; echo hi > out/n": (["unrelated"], ["outputs there"]),
    "rmdir empty && echo gone > out/x": ([], ["empty filled"]),
    "cp -n t1 out/t1": ([], ["outputs there"]),
    "cat inc3/../t1 > out/n": ([], ["inc2 moved"]),
    "set -C; echo free > out/lock 2>/dev/null && { rm out/lock; echo got > out/r; }; true": ([], ["lock file"]),
    "gcc -O1 -c src/f.c -Iinc -Iinc2 -o out/f.o": (["outputs there"], ["shadow a.h"]),
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    table = Table(tmp_path_factory.mktemp("table") / "here")
    yield table
    table.make()
    table.close()


@pytest.mark.parametrize("command", PAIRS)
def test_a_result_is_used_again_where_it_would_be_the_same_and_nowhere_else(table: Table, command: str) -> None:
    hits, misses = PAIRS[command]
    assert command in COMMANDS
    row = table.predict(command, {name: MUTATIONS[name] for name in [*hits, *misses]})
    assert row.wrong_hits == []
    assert row.lost_hits == []
    assert (row.right_hits, row.right_misses) == (hits, misses)
