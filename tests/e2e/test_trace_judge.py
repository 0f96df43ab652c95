"""A trace has each path that strace sees, of many kinds of commands, in the product's own sandbox.

Each command runs under strace, in a job that is traced, so that both see the same calls. The paths
that strace itself uses are in the trace, too: if that of the C library is missed, nobody sees it.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from termite.engine.fleet.logic.learnt_names import LearntNames
from termite.engine.model import TraceMode
from tests.e2e.mirror_places import NOBODY, mirror_place
from tests.e2e.mirrors import FakeMaster, Starter, mirror
from tests.e2e.strace_judge import COMMAND, named_paths

TRAPS = Path(__file__).parents[1] / "native/trace_traps.c"
LEAST_COMMANDS = 23
MAKEFILE = "all: a.o b.o\n\tar rcs l.a $^\n%.o: %.c h.h\n\tgcc -c $< -o $@\n"
CMAKE = "cmake_minimum_required(VERSION 3.20)\nproject(p C)\nadd_executable(x a.c)\n"
# The program that a command needs, if a machine may lack it, and the command.
COMMANDS = (
    ("", "gcc -c a.c -o a.o"),
    ("", "g++ -O1 -c c.cc -o c.o"),
    ("", "gcc -c -MD -Iinclude -include h.h b.c"),
    ("", "gcc a.c b.c -o x && ./x"),
    ("", "gcc -flto a.c b.c -o y"),
    ("", "gcc -S a.c && as a.s -o s.o && strip s.o && objcopy s.o t.o"),
    ("", "gcc -c a.c b.c && ar rcs l.a a.o b.o && ar t l.a && ld -r -o r.o a.o b.o"),
    ("", "make -j2 all"),
    ("", "python3 -m compileall -q py; python3 -c 'import json, sqlite3'"),
    ("", "python3 -c 'import os; print(list(os.walk(\".\")))'"),
    ("", "perl -MFile::Find -e 'find(sub {}, \".\")'"),
    ("", "find . -type f | sort | xargs cat | wc"),
    ("", "tar cf t.tar py include && mkdir u && tar xf t.tar -C u && rm -r u t.tar"),
    ("", "sed -i s/a/b/ h.h; cp -a py q; mv q r; ln r/m.py s; install -m 755 s t; touch -r s t"),
    ("", "bash -c 'cat <(ls py) >f; pushd py; echo *; popd; for i in ./*; do [ -e $i/x ]; done'"),
    ("", "cd py && cat ../a.c ./../include/../b.c && cd - && ls -la /usr/../etc/"),
    ("", "ln -s py link; cat link/m.py; readlink -f link/m.py; realpath link; rm link; [ -L link ]"),
    ("", "mkdir -p d/e/f; mktemp d/XXXXXX; chmod 700 d; rmdir d/e/f; truncate -s 5 d/g; stat d/g; rm -rf d"),
    ("", "grep -r main .; diff -r py include; awk 1 a.c; head -c 5 b.c | tr a b | tee o | cmp - a.c"),
    ("", "./static children; ./static descriptors; ./static sockets; ./static threads"),
    ("", "./static narrow; ./static executed; ./static kinds"),
    ("cmake", "cmake -S . -B build && cmake --build build"),
    ("git", "HOME=$PWD git init -q g && cd g && echo 1 >f && git add f && git status && git log"),
    ("", "env -i /bin/sh -c 'command -v nosuch; . ./env.sh; nosuch'"),
    ("node", 'node -e \'require("fs").readdirSync("."); require("os")\''),
    ("m4", "echo 'include(h.h)' | m4 -I include"),
)


@pytest.fixture
def place() -> Iterator[Path]:
    with mirror_place() as path:
        project = path / "project"
        for name, text in (
            ("a.c", '#include <stdio.h>\n#include "h.h"\nint main(void) { return f(); }\n'),
            ("b.c", "#include <math.h>\n#include <inner.h>\nint f(void) { return 0; }\n"),
            ("c.cc", "#include <vector>\nint g() { return std::vector<int>().size(); }\n"),
            ("h.h", "int f(void);\n"),
            ("include/inner.h", "#define INNER\n"),
            ("py/m.py", "import os\n"),
            ("env.sh", "X=1\n"),
            ("Makefile", MAKEFILE),
            ("CMakeLists.txt", CMAKE),
        ):
            (project / name).parent.mkdir(exist_ok=True)
            (project / name).write_text(text)
        flags = ["-D_GNU_SOURCE", "-O1", "-static", "-no-pie", "-pthread"]
        subprocess.run(["gcc", *flags, TRAPS, "-o", project / "static"], check=True)
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", str(NOBODY), project], check=True)
        yield path


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
async def test_a_trace_has_each_path_that_strace_sees(place: Path) -> None:
    master, learnt = FakeMaster(place / "project"), LearntNames()
    missed: dict[str, list[str]] = {}
    commands = [text for program, text in COMMANDS if not program or shutil.which(program, path="/usr/bin")]
    assert len(commands) >= LEAST_COMMANDS
    async with mirror(master, place, Starter(user=NOBODY if os.geteuid() == 0 else None)):
        for text in commands:
            chunks: list[bytes] = []
            shell = ("sh", "-c", f"{{ {text}; }} >/dev/null 2>&1")
            ran = await master.run(
                *COMMAND, *shell, output=chunks, trace=TraceMode.EXACT, names_known=len(learnt), stdin=False
            )
            assert ran.trace is not None
            learnt.learn(ran.trace)
            mine = {os.fsdecode(path) for path, _ in learnt.accesses(ran.trace)}
            seen = named_paths(b"".join(chunk[1:] for chunk in chunks).decode("latin-1"))
            assert (len(seen) > 5, ran.trace.gaps) == (True, 0), (text, ran)
            missed[text] = sorted(seen - mine)
    assert {text: paths for text, paths in missed.items() if paths} == {}
