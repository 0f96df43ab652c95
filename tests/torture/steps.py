"""The commands of the synthetic project, as values without a build tool.

The commands are those that find faults. Some may not run twice (`>>`, `mv`, `ar q`, `mkdir`,
`patch`, `ln -s`, a counter), so that a second run is seen in the tree. Some print before they are
done.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

LIBRARIES = 2
MANY = 300  # files of a large result: it takes long enough to publish that a kill can hit it
# Jobs append this in parallel. All lines are equal, so that their order does not matter.
SHARED = "echo shared >>shared.log"


@dataclass(frozen=True, slots=True)
class Step:
    """A step is one command, run in the directory `within`.

    `output` and `inputs` are paths from the top of the tree. A step of the group "top" is a rule of
    the top directory's makefile; other groups are directories with a makefile of their own.
    """

    output: str
    inputs: tuple[str, ...]
    command: str
    group: str = "top"

    @property
    def script(self) -> str:
        """Return the command so that it ends at its first error, such as a full disk."""
        return f"set -e; {self.command}" if any(sign in self.command for sign in ";|>") else self.command

    @property
    def within(self) -> str:
        return "." if self.group == "top" else self.group


@dataclass(frozen=True, slots=True)
class Size:
    """A size says how many steps of each kind a project has."""

    headers: int
    objects: int  # of each library
    programs: int
    others: int
    chain: int


SMALL = Size(headers=4, objects=3, programs=1, others=1, chain=4)
USUAL = Size(headers=12, objects=10, programs=3, others=5, chain=10)


def all_steps(seed: int, size: Size, *, is_repeatable: bool) -> list[Step]:
    """Return the steps of a project. A repeatable one lacks the commands that may not run twice."""
    steps = [*_headers(size), *_libraries(seed, size), *_programs(size), *_others(size), *_chain(size)]
    steps += [*_shadow(), *_file_and_directory(), *_renames()]
    return steps if is_repeatable else [*steps, *_once(seed, size)]


def _headers(size: Size) -> Iterator[Step]:
    for n in range(size.headers):
        name = f"include/g{n % 3}/gen{n}.h"
        command = (
            f"mkdir -p include/g{n % 3} && sh tools/gen.sh {n} $(cat version.txt) >{name}.tmp && mv {name}.tmp {name}"
        )
        yield Step(name, ("tools/gen.sh", "version.txt"), command)


def included(seed: int, size: Size) -> dict[str, list[int]]:
    """Return the numbers of the generated headers that each source of a library includes."""
    choose = random.Random(seed)
    names = [f"lib{lib}/f{lib}_{n}" for lib in range(LIBRARIES) for n in range(size.objects)]
    return {name: sorted({choose.randrange(size.headers) for _ in range(3)}) for name in names}


def _libraries(seed: int, size: Size) -> Iterator[Step]:
    uses = included(seed, size)
    for lib in range(LIBRARIES):
        objects = []
        for n in range(size.objects):
            name = f"lib{lib}/f{lib}_{n}"
            objects.append(f"{name}.o")
            headers = tuple(f"include/g{number % 3}/gen{number}.h" for number in uses[name])
            flags = "-O1 -MMD -I../include/g0 -I../include/g1 -I../include/g2"
            base = name.partition("/")[2]
            yield Step(f"{name}.o", (f"{name}.c", *headers), f"gcc {flags} -c {base}.c -o {base}.o", f"lib{lib}")
        local = " ".join(name.partition("/")[2] for name in objects)
        yield Step(f"lib{lib}/libx.a", tuple(objects), f"rm -f libx.a; ar rcsD libx.a {local}", f"lib{lib}")


def _programs(size: Size) -> Iterator[Step]:
    archives = tuple(f"lib{lib}/libx.a" for lib in range(LIBRARIES))
    libraries = " ".join(f"../{name}" for name in archives)
    for n in range(size.programs):
        yield Step(f"app/p{n}.o", (f"app/p{n}.c",), f"gcc -c p{n}.c -o p{n}.o", "app")
        link = f"gcc -o p{n} p{n}.o {libraries} -Wl,--build-id=none && echo linked p{n}"
        yield Step(f"app/p{n}", (f"app/p{n}.o", *archives), link, "app")
        run = f"./p{n} >p{n}.out; ln -f p{n}.out p{n}.hard; ln -sf p{n}.out p{n}.sym; chmod 640 p{n}.out"
        yield Step(f"app/p{n}.out", (f"app/p{n}",), run, "app")


def _others(size: Size) -> Iterator[Step]:
    large = f"rm -rf large; mkdir large; i=0; while [ $i -lt {MANY} ]; do echo $i >large/$i; i=$((i+1)); done"
    yield Step("other/large.done", ("version.txt",), f"{large}; touch large.done", "other")
    for n in range(size.others):
        made = (
            f"rm -rf w{n} d{n}; mkdir -p w{n}/x/y && cp ../version.txt w{n}/x/y/v && mv w{n} d{n} && chmod 700 d{n}/x"
        )
        yield Step(f"other/d{n}.done", ("version.txt",), f"{made} && echo made d{n} && echo {n} >d{n}.done", "other")
        loop = "i=0; while [ $i -lt 90 ]; do sh -c :; echo line $i; i=$((i+30)); done"
        yield Step(
            f"other/m{n}.out", ("tools/gen.sh",), f"({loop}) | sort -r >m{n}.tmp; mv -f m{n}.tmp m{n}.out", "other"
        )
        copy = f"cp -p m{n}.out c{n}.out; touch c{n}.out; sed -i s/0/zero/ c{n}.out; gzip -nc c{n}.out >c{n}.gz"
        yield Step(f"other/c{n}.out", (f"other/m{n}.out",), copy, "other")
        early = f"echo begin {n}; sleep 0.3; echo end {n}; echo {n} >e{n}.out"
        yield Step(f"other/e{n}.out", ("version.txt",), early, "other")


def _chain(size: Size) -> Iterator[Step]:
    yield Step("chain/start", (), "mkdir -p chain; : >chain/log; echo 0 >chain/start")
    for n in range(size.chain):
        before = "chain/start" if n == 0 else f"chain/s{n - 1}"
        logged = f"head -n {n} chain/log >chain/new; echo {n} >>chain/new; mv chain/new chain/log"
        yield Step(f"chain/s{n}", (before,), f"{logged}; n=$(ls chain | wc -l); echo $n >chain/s{n}")


def _shadow() -> Iterator[Step]:
    """Yield the steps around a header that appears earlier in the include path between two jobs."""
    compiled = "gcc -c -Iearly -Ilate -DN={n} shadow.c -o shadow{n}.o"
    yield Step("shadow1.o", ("shadow.c", "late/s.h"), compiled.format(n=1))
    yield Step("early/s.h", ("shadow1.o",), "mkdir -p early; echo '#define S \"early\"' >early/s.h")
    yield Step("shadow2.o", ("shadow.c", "early/s.h"), compiled.format(n=2))
    words = "for n in 1 2; do strings -a shadow$n.o | grep -E '^(late|early)$'; done >shadow.out"
    yield Step("shadow.out", ("shadow1.o", "shadow2.o"), words)


def _file_and_directory() -> Iterator[Step]:
    """Yield the steps that make one name a file, a directory, a file and a directory."""
    yield Step("fd.1", (), "rm -rf fd; echo file >fd; cat fd >fd.1")
    yield Step("fd.2", ("fd.1",), "rm -rf fd; mkdir fd; echo in >fd/x; ls fd >fd.2")
    yield Step("fd.3", ("fd.2",), "rm -rf fd; echo again >fd; cat fd >fd.3")
    yield Step("fd.out", ("fd.3",), "rm -rf fd; mkdir -p fd/a/b; echo deep >fd/a/b/c; find fd | LC_ALL=C sort >fd.out")


def _renames() -> Iterator[Step]:
    grown = "rm -rf td td2; mkdir -p td/a/b td/c; for i in 1 2 3 4 5 6; do echo $i >td/a/b/f$i; done"
    yield Step("td.1", (), f"{grown}; ln -s a/b/f1 td/link; ln td/a/b/f2 td/c/hard; touch td.1")
    again = f"{grown}; ln -s a/b/f1 td/link; ln td/a/b/f2 td/c/hard"
    yield Step("td.2", ("td.1",), f"{again}; mv td td2; mv td2/a td2/z; rm td2/z/b/f3; chmod 751 td2/c; touch td.2")
    yield Step("td.out", ("td.2",), "rm -rf td; cp -a td2 td; find td | LC_ALL=C sort >td.out; cat td/c/hard >>td.out")


def _once(seed: int, size: Size) -> Iterator[Step]:
    """Yield the commands that may not run twice: each leaves a trace of a second run."""
    many = f"mkdir many && i=0; while [ $i -lt {MANY} ]; do echo $i >many/$i; i=$((i+1)); done; echo done >many.done"
    yield Step("once/many.done", (), many, "once")
    yield Step("once/moved.done", ("once/many.done",), "echo moved >>move.log; mv many moved; touch moved.done", "once")
    yield Step("once/ar.done", ("version.txt",), "ar qcD q.a ../version.txt; ar tO q.a; touch ar.done", "once")
    yield Step("once/patch.done", ("once/change.diff",), "patch -s <change.diff; touch patch.done", "once")
    yield Step("once/link.done", (), "ln -s /nowhere link && touch link.done", "once")
    piped = "seq 2000 | sort -r >>sorted; cat version.txt | wc -l >>sorted; touch piped.done"
    if seed % 3 == 0:  # not in every project: if such a job is lost, the build must end early
        yield Step("piped.done", ("version.txt",), piped)
    yield Step("failed.done", (), "sh -c 'echo failing; exit 7' || echo $? >>failed.code; touch failed.done")
    for n in range(size.others):
        append = f"echo line >>append{n}.log; {SHARED}; touch append{n}.done"
        yield Step(f"once/append{n}.done", (), append, "once")
        loud = f"echo before {n}; sleep 0.2; echo line >>loud{n}.log; {SHARED}; echo after {n}; touch loud{n}.done"
        yield Step(f"once/loud{n}.done", (), loud, "once")
        count = f"c=$(cat count{n} 2>/dev/null || echo 0); c=$((c+1)); echo $c >count{n}; echo counted $c"
        yield Step(f"once/count{n}.done", (), f"{count}; {SHARED}; touch count{n}.done", "once")
        directory = f"mkdir dir{n} && echo x >dir{n}/x; sleep 0.1; {SHARED}; touch dir{n}.done"
        yield Step(f"once/dir{n}.done", (), directory, "once")
