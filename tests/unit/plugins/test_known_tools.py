"""The entries of the table judge the words and the environment of a call."""

import shlex
from collections.abc import Mapping

import pytest

from termite.engine.decide.known_tools import ToolCall, Vouch
from tests.unit.engine.recall.known_commands import TABLE
from tests.unit.tables import each_row


def judged(text: str, env: Mapping[str, str] | None = None) -> Vouch | str:
    words = shlex.split(text)
    tool = TABLE.tool_called(words[0].rpartition("/")[2])
    return tool.judge(ToolCall(words[0], tuple(words[1:]), env or {})) if tool else "no entry"


@each_row(
    "text",
    [
        "gcc -c x.c",
        "gcc -DA=1 -UB -Iinc -I inc -isystem inc -include a.h -O2 -g3 -Wall -Werror=x -std=gnu11 -fPIC -c x.c -o x.o",
        "x86_64-linux-gnu-g++-12 -MD -MT x.o -MF x.d -MQ x -MP -c x.cpp",
        "cc -Wp,-MMD,.x.d -Wp,-DA -nostdinc -D__KERNEL__ -fno-PIE -m64 -march=x86-64 -mno-sse -c -o x.o x.c",
        "gcc -Wa,--noexecstack -c x.S",
        "gcc x.o y.o libz.a -o x -Wl,-rpath,/x -Wl,-soname,libx.so.1 -Wl,--gc-sections -lm -pthread -shared",
        "gcc x.c -o x -Wl,--as-needed",
        "gcc -x c++ x.h -fsyntax-only",
        "gcc -E x.h",
        "gcc -fno-lto -fdebug-prefix-map=a=b -ffile-prefix-map=a=b -fdata-sections -fverbose-asm -c x.c",
        "clang++ --target=aarch64-linux-gnu -Qunused-arguments -stdlib=libc++ -c x.cc",
        "clang -target armv7-none-eabi -c x.c",
        "ld -m elf_x86_64 -r x.o -o y.o --build-id=sha1 -T x.ld -z noexecstack",
        "as --64 -g x.s -o x.o",
        "ar cqs x.a x.o",
        "ar -rD x.a x.o",
        "ranlib -D x.a",
        "strip --strip-debug -K main x.o -o y.o",
        "objcopy -O binary -R .note x y",
        "objdump -d x.o",
        "bison -y -d --defines=x.h -o x.c x.y",
        "flex --noline -ox.c x.l",
        "cp -rf a b c",
        "install -c -m 644 a b",
        "mkdir -p -m 700 a",
        "chmod -x a",
        "chmod -R u+w a",
        "sed -i.bak s/a/b/g x",
        "sed -n -e '/^#define *A/p' -e 's,a\\,b,c,' x",
        "sed '1,/x/d; $!N; y' x || true".replace("; y", ""),
        "test -f a -a ! -d b",
        "[ a = b ]",
        "[ 3 -lt 5 ]",
        "cmake -E rm -f x.a",
        "tail -n +2 x",
    ],
)
def test_what_repeats_itself_is_vouched_for(text: str) -> None:
    assert isinstance(judged(text.removesuffix(" || true")), Vouch), judged(text)


@each_row(
    "text",
    [
        *("gcc", "gcc @x", "gcc -c -", "gcc -c x.c @more", "gcc -v -c x.c", "gcc -### x.c", "gcc --version"),
        *("gcc -Wl,--as-needed -v -c x.c", "gcc -D A -v -c x.c", "gcc -Wa,-a -c x.c"),
        *("gcc -Wa,-g -c x.c", "gcc -Wa,--noexecstack,-MD,x -c x.c", "as -g -a x.s"),
        *("gcc -DA=__DATE__ -c x.c", "gcc -D A=__TIME__ -c x.c", "gcc -Wp,-DA=__TIMESTAMP__ -c x.c"),
        *("gcc -flto x.o -o x", "gcc -flto -frandom-seed=1 x.o -o x", "gcc -flto=auto -c x.c"),
        *("gcc -fprofile-arcs -c x.c", "gcc -ftest-coverage -c x.c", "gcc --coverage -c x.c"),
        *("gcc -Bbin -c x.c", "gcc -B bin -c x.c", "gcc -wrapper a,b -c x.c", "gcc -specs=x -c x.c"),
        *("gcc -fplugin=x.so -c x.c", "clang -Xclang -load -c x.c", "clang -mllvm x -c x.c", "clang --config x -c x.c"),
        *("gcc x.h", "gcc -c x.hpp -o x.gch", "gcc -x c-header x.h", "gcc -xc++-header x", "clang -fmodules -c x.c"),
        *("gcc -ftime-report -c x.c", "gcc -fdump-tree-all -c x.c", "gcc -time=x -c x.c", "clang -ftime-trace -c x.c"),
        *("gcc x.c -Wl,-Map=m", "gcc x.c -Xlinker -Map=m", "gcc x.c -Wl,--cref", "gcc -save-temps x.c"),
        *("gcc x.o -Wl,--build-id=uuid", "gcc x.o -Wl,-plugin,x", "gcc x.o -Wl,@x", "gcc x.o -Xlinker --stats"),
        *("gcc --what-is-this -c x.c", "gcc -Xassembler -a -c x.c", "gcc -Xpreprocessor -v -c x.c", "gcc -x ada x"),
        *("clang --target=x86_64-w64-mingw32 -c x.c", "clang -target x86_64-apple-darwin -c x.c"),
        *("i686-w64-mingw32-gcc -c x.c", "i686-w64-mingw32-ld x.o", "ld -m i386pe x.o", "ld --oformat pei-i386 x.o"),
        *("ld @x", "ld -plugin x y.o", "ld --verbose", "as -al x.s", "as --statistics x.s", "as", "as -"),
        *("ar", "ar rU x.a y.o", "ar @x", "ar rcs x.a @y", "ar x x.a", "ar --plugin x rcs x.a y.o", "ar tv x.a"),
        *("ranlib -U x.a", "strip -U x.a", "objcopy --disable-deterministic-archives x y", "objcopy -O pei-x86-64 x y"),
        *("objcopy -O efi-app-x86_64 x y", "objdump -a x.a", "nm @x", "nm --plugin x y"),
        *("bison -S x.c x.y", "bison -Wcex x.y", "bison -rall x.y", "ld.gold --threads x.o"),
        *("bison --skeleton=x.c x.y", "flex", "flex -S skel x.l", "flex --skel=x x.l", "m4 x"),
        *("cp -i a b", "cp --backup a b", "cp -rv a b", "cp", "install -s a b", "install -o root a b", "rm -rv a"),
        *("touch -d now a", "touch -t 1 a", "touch -r a b", "chmod -Rv 755 a", "chmod --reference=a b"),
        *("sed e x", "sed '1e date' x", "sed s/a/date/e x", "sed 's/a/b/w x' y", "sed -f x y", "sed 'w x' y", "sed"),
        *("sed '1r /dev/stdin' y", "sed 'a x' y", "sed --debug p x", "sed -e p -e '1e date' x", "sed '{p}' x"),
        *("test a -nt b", "test a -ot b", "test -t 1", "test -O a", "test -N a", "[ a", "printf '%(%s)T'"),
        *("sort -R a", "sort --random-source=a b", "tail -f a", "grep -r a .", "cat --help", "cmake -P x"),
        *("cmake", "cmake -E env x", "date", "make", "python3 x.py", "tar cf x y", "gzip x", "ccache gcc -c x.c"),
    ],
)  # fmt: skip
def test_what_may_differ_is_refused(text: str) -> None:
    assert isinstance(judged(text), str), judged(text)


@each_row(
    ("text", "is_blind"),
    [
        ("gcc -c x.c", True),
        ("ar rcs x.a y.o", True),
        ("cp a b", True),
        ("cp -p a b", False),
        ("cp -a a b", False),
        ("cp --preserve=mode a b", False),
        ("install -p a b", False),
        ("mv -f a b", True),
        ("mv -u a b", False),
        ("strip -p x", False),
    ],
)
def test_some_calls_depend_on_times(text: str, is_blind: bool) -> None:
    vouch = judged(text)
    assert isinstance(vouch, Vouch)
    assert vouch.is_blind is is_blind


@pytest.mark.parametrize("text", ["gcc -march=native -c x.c", "gcc -mtune=native -c x.c", "clang -mcpu=native -c x.c"])
def test_a_result_for_one_processor_is_marked(text: str) -> None:
    vouch = judged(text)
    assert isinstance(vouch, Vouch)
    assert vouch.asks_machine


@each_row(
    ("text", "variable"),
    [
        ("gcc -c x.c", "COMPILER_PATH"),
        ("gcc -c x.c", "DEPENDENCIES_OUTPUT"),
        ("gcc -c x.c", "SUNPRO_DEPENDENCIES"),
        ("clang -c x.c", "CCC_OVERRIDE_OPTIONS"),
        ("ld x.o", "LDEMULATION"),
        ("as x.s", "GNUTARGET"),
        ("strip x", "GNUTARGET"),
        ("bison x.y", "M4"),
    ],
)
def test_variables_that_change_a_tool_are_refused(text: str, variable: str) -> None:
    assert judged(text, {variable: "x"}) == f"{variable} is set"
    assert isinstance(judged(text, {variable: ""}), Vouch)
