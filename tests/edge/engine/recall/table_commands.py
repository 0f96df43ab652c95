"""The commands of the table, and the mutations of their tree before they run again.

Each command runs in a copy of the same small tree.
"""

SETUP = """
mkdir inc inc2 src lib out empty; echo '#define A 1' > inc2/a.h; echo '#include "a.h"
int f(void){return A;}' > src/f.c; echo 'int g(void){return 2;}' > src/g.c
echo 'int f(void);int main(void){return f();}' > src/m.c
for i in f g; do gcc -O1 -c src/$i.c -Iinc2 -o lib/$i.o; done; ar rcs lib/old.a lib/f.o
echo one > t1; echo two > t2; ln -s inc2 inc3; ln -s t1 tl; printf '#!/bin/sh\\ncat t1\\n' > gen.sh; chmod +x gen.sh
echo x > log; touch -d 2020-01-01 src/* inc2/* lib/* t1 t2
"""

COMMANDS = (
    "cat src/*.c > out/all",
    "echo new >> log",
    "sed -i s/one/uno/ t1",
    "test -e out/x || echo made > out/x",
    "cp t1 out/t1; cp t2 out/t2",
    "mv t1 out/moved",
    "mkdir -p out/d/e && cat tl > out/d/e/f",
    "./gen.sh > out/gen",
    "ls inc2 > out/list",
    'wc -l src/f.c | cut -d" " -f1 > out/n',
    "install -m 755 gen.sh out/run && out/run > out/said",
    'find . -name "*.h" > out/found',
    "[ t1 -nt t2 ] && echo newer > out/newer; true",
    "ln -sf t2 tl && cat tl > out/l",
    "cp -p t1 out/p",
    "cat t1 > out/same; rm t1",
    "grep -l two t* > out/g; true",
    "if mkdir out/lock 2>/dev/null; then echo got > out/r; rmdir out/lock; else echo busy > out/r; fi",
    "test -w t1 && echo w > out/w || echo r > out/w",
    "readlink tl > out/rl",
    "realpath inc3/a.h > out/rp",
    "tar cf - src | wc -c > out/size",
    "cat < t1 > t1.new && mv t1.new t1",
    # These are not of the first experiment.
    "ls out; echo hi > out/n",
    "rmdir empty && echo gone > out/x",
    "chmod 755 t1",
    "cp -n t1 out/t1",
    "cat inc3/../t1 > out/n",
    "mkdir out/k; touch out/k/f",
    "rm -rf inc2",
    "cp t1 out/t1",
    "ln t1 out/t1",
    "set -C; echo free > out/lock 2>/dev/null && { rm out/lock; echo got > out/r; }; true",
    # The slow ones.
    "gcc -O1 -c src/f.c -Iinc -Iinc2 -o out/f.o",
    "gcc -O1 -c src/f.c -Iinc3 -MD -o out/f.o",
    "ar rcs lib/new.a lib/f.o lib/g.o",
    "ar rc lib/old.a lib/g.o",
    "gcc -o out/m src/m.c lib/f.o",
    "rm -f lib/old.a; ar rcs lib/old.a lib/*.o",
    "python3 -c \"import os; open('out/py','w').write(open('t1').read()+str(os.path.islink('tl')))\"",
    "ld -r -o lib/f.o lib/f.o lib/g.o",
    "gcc -O1 -flto -frandom-seed=g -c src/g.c -o out/g.o && gcc -flto -frandom-seed=h -nostdlib -r -o out/gg.o out/g.o",
)

MUTATIONS = {
    "nothing": "true",
    "edit f.c": "echo >> src/f.c",
    "edit g.c": 'echo "int h;" >> src/g.c',
    "edit a.h": 'echo "#define A 2" > inc2/a.h',
    "shadow a.h": 'cp inc2/a.h inc/a.h; printf "#undef A\\n#define A 7\\n" >> inc/a.h',
    "a.h beside f.c": 'echo "#define A 9" > src/a.h',
    "unrelated": "echo z > unrelated",
    "new .c": 'echo "int n;" > src/n.c',
    "new .o": "cp lib/g.o lib/h.o",
    "new .h": "echo > inc2/b.h",
    "del g.c": "rm src/g.c",
    "outputs there": "for i in f.o all x t1 t2 moved gen list n run said found newer py l p same g r w rl rp size m "
    "gg.o; do echo old > out/$i; done",
    "output ro": "for i in f.o all x gen t1 p; do echo old > out/$i; chmod 444 out/$i; done",
    "outputs 755": "for i in f.o all x t1 n list; do echo old > out/$i; chmod 755 out/$i; done",
    "outputs linked": "for i in f.o all x t1 n list; do echo old > out/$i; ln out/$i other-$i; done",
    "log mode": "chmod 755 log; chmod 640 t1",
    "new.a there": "ar rcs lib/new.a lib/old.a",
    "touch t1": "touch t1",
    "touch t2": "touch t2",
    "edit t1": "echo other > t1",
    "edit t2": 'echo "two more" > t2',
    "relink tl": "ln -sf t2 tl",
    "relink inc3": "ln -sfn inc inc3",
    "tl a file": "rm tl; echo one > tl",
    "gen.sh": 'echo "echo more" >> gen.sh',
    "gen.sh -x": "chmod -x gen.sh",
    "log": "echo y >> log",
    "out a link": "mv out o2; ln -s o2 out",
    "out/d file": "echo > out/d",
    "lock": "mkdir out/lock",
    "ro t1": "chmod 444 t1",
    "old.a gone": "rm lib/old.a",
    "f.o": "cp lib/g.o lib/f.o",
    "same bytes": "cp t1 q; mv q t1; cp src/f.c q; mv q src/f.c; touch -d 2021-01-01 src/f.c",
    "dir mode": "chmod 700 src inc2",
    "t3": "echo two > t3",
    # These are not of the first experiment.
    "empty filled": "echo > empty/f",
    "lock file": "echo > out/lock",
    "out closed": "chmod 555 out",
    "t1 closed": "chmod 000 t1",
    "src closed": "chmod 600 src",
    "t1 linked": "ln t1 t1.other",
    "inc2 moved": "mkdir deep; mv inc2 deep/inc2; ln -sfn deep/inc2 inc3",
}

# They look at times. Several runs that differ in times alone would have shown that of the others
# that they do not.
TIMED = ("-nt", "cp -p", "tar cf")


def argv_of(command: str) -> list[str]:
    """Return the words of a command, as make starts it: by a shell only if it needs one."""
    return ["sh", "-c", command] if set(command) & set("*?|&;<>$\"(){}[]'") else command.split()
