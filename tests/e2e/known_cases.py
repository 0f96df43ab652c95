"""Commands of the table of known tools, and commands that it refuses.

All of them run in a directory with the same files (`make_inputs`). Each entry of the table has a
command that is executed twice with equal results. Each guard has a command that it refuses, and
whose two results differ.
"""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from termite.engine.host.native_programs import native_program

LAUNCHER = shlex.quote(str(native_program("termite")))
SHELL_SIGNS = ("&&", ";", ">", "$", "|", "A=", "`")


class KnownCase(NamedTuple):
    """A command, and the program that it needs if a machine may lack it."""

    text: str
    needs: str = ""

    @property
    def argv(self) -> Sequence[str]:
        """The words of the command; a shell runs it if it has a sign for one."""
        return ("sh", "-c", self.text) if any(sign in self.text for sign in SHELL_SIGNS) else shlex.split(self.text)


KNOWN = (
    KnownCase("gcc -g -O2 -Wall -c x.c -o x.o -MD -MF x.d"),
    KnownCase("g++ -g -O1 -std=c++17 -c c.cc"),
    KnownCase("gcc -pipe -c s.S y.c"),
    KnownCase("gcc -E -P x.c -o x.i"),
    KnownCase("gcc -Wall -Wextra -fstack-usage -fsanitize=undefined -c unused.c"),
    KnownCase("gcc -g -gsplit-dwarf -c x.c"),
    KnownCase("gcc -save-temps -c y.c"),
    KnownCase("gcc -flto -frandom-seed=x -c x.c"),
    KnownCase("cd . && SOURCE_DATE_EPOCH=1 gcc -c date.c"),
    KnownCase("gcc -S y.c && as y.s -o z.o"),
    KnownCase("gcc -g x.c y.c -o program"),
    KnownCase("gcc -c warn.c y.c && gcc warn.o y.o -o program -Wl,-Map=map"),
    KnownCase("gcc -fPIC -shared -fuse-ld=gold y.o -o liby.so", "ld.gold"),
    KnownCase("ld.gold -r y.o -o z.o", "ld.gold"),
    KnownCase("ld -r y.o -o z.o"),
    KnownCase("ld.lld y.o -shared -o z.so", "ld.lld"),
    KnownCase("clang -g -O1 -c x.c", "clang"),
    KnownCase("clang++ -c c.cc", "clang"),
    KnownCase("clang x.c y.c -o program", "clang"),
    KnownCase("ar rcs l.a y.o && ar qc m.a y.o && ranlib m.a && ar t m.a && ar d m.a y.o"),
    KnownCase("ar rcu new.a y.o"),
    KnownCase("strip -g y.o -o z.o && objcopy --only-keep-debug y.o y.debug && strip old.a"),
    KnownCase("nm y.o && size y.o && readelf -a y.o && objdump -d y.o && strings y.o"),
    KnownCase("bison -d -o g.c g.y", "bison"),
    KnownCase("flex -o l.c l.l", "flex"),
    KnownCase("cp -r sub new && cp -p t.txt u.txt && cp -f x.c z.c"),
    KnownCase("install -d d/e && install -m 755 t.txt d/e/u && install -D x.c f/x.c"),
    KnownCase("mv t.txt u.txt && ln -s u.txt link && ln x.c hard"),
    KnownCase("mkdir -p d/e && rmdir d/e && mkdir -m 700 f && rm -rf sub t.txt"),
    KnownCase("touch new t.txt && chmod 750 new && chmod -x run.sh"),
    KnownCase("sed -e 's/a/b/g' -e '2,3d' t.txt > u.txt && sed -n '/l/p' t.txt && sed -i 's|e|E|' t.txt"),
    KnownCase("test -f x.c && [ -d sub ] && echo there || false"),
    KnownCase('echo a > u && printf "%s\\n" b >> u && basename a/b && dirname a/b && seq 3 && /bin/echo x'),
    KnownCase("cat x.c y.c > u && sort -r t.txt && head -n 2 t.txt && tail -n1 t.txt && cut -c1 t.txt"),
    KnownCase("grep -n l t.txt && cmp x.c x.c; wc t.txt; uniq t.txt; tr a b < t.txt"),
    KnownCase("cmake -E rm -f t.txt && cmake -E make_directory d && cmake -E touch d/e", "cmake"),
    KnownCase("cmake -E copy run.sh d && cmake -E copy_if_different x.c z.c", "cmake"),
    KnownCase("cmake -E cmake_symlink_library y.o l.so.1 l.so && cmake -E rename x.c z.c", "cmake"),
    KnownCase(
        "depbase=`echo x.o | sed 's|[^/]*$|sub/&|;s|\\.o$||'`; gcc -MT x.o -MD -MP -MF $depbase.Tpo -c -o x.o"
        " `test -f 'x.c' || echo './'`x.c && mv -f $depbase.Tpo $depbase.Po"
    ),
    KnownCase("rm -f u && { echo '/* made */' && sed -e 's|a|b|g' -e '/l/r ./x.c' < ./t.txt; } > u-t && mv -f u-t u"),
    KnownCase("mkdir d 2>/dev/null || test -d d"),
    KnownCase("if test -f x.c; then cp x.c u; else cp y.c u; fi && for f in x.c t.txt; do rm $f; done"),
    KnownCase("cp x.c u && cp y.c v || exit 1"),
    KnownCase("x=t; case $x in a|b) rm t.txt;; *) ;; esac; (cd sub && cat a)"),
    KnownCase(f'{LAUNCHER} --cmake=compile --object="x.o" -- gcc -c x.c && :'),
)  # fmt: skip

# They depend on times of inputs.
TIMED = (
    KnownCase("ar rcu old.a y.o"),
    KnownCase("cp -u x.c t.txt"),
    KnownCase("mv -u x.c t.txt"),
)

# Nobody would see that one of their commands has failed, or two of them write at the same time. A
# second run must prove them, but times do not matter.
UNSEEN = (
    KnownCase("(ranlib old.a || true) >/dev/null 2>&1"),
    KnownCase("{ echo '/* made */'; sed -e 's|a|b|g' < ./t.txt; } > u-t && mv -f u-t u"),
    KnownCase("grep -n l t.txt | sort -r > u"),
    KnownCase("for f in x.c y.c; do cp $f sub; done; if [ -d sub ]; then touch sub/u; fi"),
    KnownCase("gcc -c x.c || gcc -DA -c x.c"),
)

REFUSED = (
    KnownCase("if test x.c -nt t.txt; then echo newer; else echo older; fi"),
    KnownCase("for f in x.c; do cp -u $f t.txt; done; cat t.txt"),
    KnownCase("(ls -l --time-style=+%s.%N x.c | cat)"),
    KnownCase("gcc -c stamp.c || true"),
    KnownCase("gcc -c time.c"),
    KnownCase("gcc -c stamp.c"),
    KnownCase("cd . && SOURCE_DATE_EPOCH=1 gcc -c stamp.c"),
    KnownCase("clang -c time.c", "clang"),
    KnownCase("cd . && SOURCE_DATE_EPOCH=1 clang-14 -c time.c", "clang-14"),  # later ones know it
    KnownCase("gcc '-DWHEN=__TIME__' -c when.c"),
    KnownCase("echo 'char *when = __TIME__;' > new.c && gcc -c new.c"),
    KnownCase("gcc warn.c y.c -o program"),
    KnownCase("clang warn.c y.c -o program", "clang"),
    KnownCase("gcc -c message.c"),
    KnownCase("gcc -Wa,-g -c y.c"),
    KnownCase("gcc -Wa,-MD=y.d -c y.c"),
    KnownCase("gcc x.c y.c -o program -Wl,-Map=map"),
    KnownCase("gcc --coverage -c x.c"),
    KnownCase("gcc -fprofile-generate -c x.c"),
    KnownCase("gcc -flto -c x.c"),
    KnownCase("gcc h.h"),
    KnownCase("gcc -x c-header h.h -o p.gch"),
    KnownCase("gcc -v -c y.c"),
    KnownCase("clang h.h -o h.pch", "clang"),
    KnownCase("gcc -shared -fPIC -Wl,--build-id=uuid y.o -o liby.so"),
    KnownCase("ld -r --build-id=uuid y.o -o z.o"),
    KnownCase("ar rcsU l.a y.o"),
    KnownCase("as -ag=list -o z.o y.s"),
    KnownCase("sed '1e date +%N' t.txt"),
    KnownCase("sort -R lines.txt"),
    KnownCase("test x.c -nt t.txt || echo older"),
    KnownCase("echo $$"),
    KnownCase("bash -c 'printf \"%(%s)T\" -1'"),
    KnownCase("bash -c 'echo `date +%N`'"),
    KnownCase("date +%N"),
    KnownCase("cat /proc/uptime"),
    KnownCase("cp uptime u"),
    KnownCase("m4 random.m4", "m4"),
)


def make_inputs(directory: Path, objects: Path, *, is_second: bool) -> None:
    """Make the files of a case: with other times, in another order, for the second execution.

    `objects` has files that compilers have made.
    """
    directory.mkdir()
    (directory / "sub").mkdir()
    names = sorted(TEXTS, reverse=is_second)
    for at, name in enumerate(names):
        path = directory / name
        path.write_text(TEXTS[name])
        os.utime(path, ns=(10**18 + at * 10**9,) * 2)
    for made in sorted(objects.iterdir(), reverse=is_second):
        (directory / made.name).write_bytes(made.read_bytes())
        os.utime(directory / made.name, ns=(2 * 10**18 if is_second else 10**18,) * 2)
    (directory / "run.sh").chmod(0o755)
    (directory / "uptime").symlink_to("/proc/uptime")


TEXTS = {
    "x.c": '#include <stdio.h>\n#include "h.h"\nint main(void) { puts("x"); return f(0); }\n',
    "y.c": '#include "h.h"\nint f(int x) { return x; }\n',
    "h.h": "int f(int x);\n",
    "c.cc": "#include <new>\nnamespace { struct A { A(); ~A(); int x; } a; A::A() : x(*new int(3)) {} A::~A() {} }\n",
    "s.S": "#define ONE 1\n.globl q\nq: mov $ONE, %eax\n ret\n.section .note.GNU-stack\n",
    "date.c": "const char *when = __DATE__ __TIME__;\n",
    "time.c": "const char *when = __TIME__;\n",
    "stamp.c": "const char *when = __TIMESTAMP__;\n",
    "when.c": "const char *when = WHEN;\n",
    "unused.c": "int f(int x) { return 0; }\n",
    "message.c": '__asm__(".warning \\"w\\"");\n',
    "warn.c": '#include <stdio.h>\n#include "h.h"\nint main(void) { char b[99]; return !tmpnam(b) + f(0); }\n',
    "g.y": "%token A\n%%\ns: A | s A ;\n%%\nint yylex(void) { return 0; }\n",
    "l.l": "%option noyywrap\n%%\na { return 1; }\n.|\\n ;\n",
    "t.txt": "alpha\nbeta\nline\nomega\n",
    "lines.txt": "".join(f"{number}\n" for number in range(200)),
    "random.m4": "mkstemp(nameXXXXXX)\n",
    "run.sh": "#!/bin/sh\n",
    "sub/a": "1\n",
    "sub/b": "2\n",
}
OBJECTS = "gcc -g -fPIC -c y.c && gcc -S y.c && ar rcU old.a y.o && rm y.c h.h"
