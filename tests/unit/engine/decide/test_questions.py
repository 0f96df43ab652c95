"""Test which commands ask about their machine, and which machines answer alike."""

import time

import msgspec

from termite.engine.decide.logic.questions import Question, answers_alike, questions_in
from termite.engine.model import MachineFacts
from tests.unit.tables import each_row

CPU, KERNEL, CORES = Question.CPU, Question.KERNEL, Question.CORES
OURS = MachineFacts("x86_64", "Linux 6.1", "A CPU", b"features", 4, 8)


@each_row(
    ("text", "asked"),
    [
        ("gcc -march=native -c a.c", {CPU}),
        ("clang -mcpu=native a.c", {CPU}),
        ("cc -O2 -mtune=native a.c", {CPU}),
        ("rustc -C target-cpu=native a.rs", {CPU}),
        ("uname -r", {KERNEL}),
        ("echo $(uname -r)", {KERNEL}),
        ("x=`/bin/uname`; echo $x", {KERNEL}),
        ("gcc -march='native' -c a.c", {CPU}),
        ('gcc -march="native" -c a.c', {CPU}),
        (r"sh -c \"gcc -march=\'native\' a.c\"", {CPU}),
        ("clang -Xclang -target-cpu -Xclang native -c a.c", {CPU}),
        ("icx -xHost -c a.c", {CPU}),
        ("nvc -tp=host -c a.c", {CPU}),
        ("nvc -tp host -c a.c", {CPU}),
        ("python3 -c 'import os; os.uname()'", {KERNEL}),
        ("python3 -c 'import platform; print(platform.release())'", {KERNEL}),
        ("sysctl -n kernel.osrelease", {KERNEL}),
        ("python3 -c 'import os; print(len(os.sched_getaffinity(0)))'", {CORES}),
        ("arch", {KERNEL}),
        ("test `arch` = x86_64", {KERNEL}),
        ("cat /proc/version >v", {KERNEL}),
        ("make_x -j$(nproc)", {CORES}),
        ("nproc --all", {CORES}),
        ("getconf _NPROCESSORS_ONLN", {CPU, KERNEL, CORES}),
        ("lscpu | grep Model", {CPU, CORES}),
        ("grep -c ^processor /proc/cpuinfo", {CPU, CORES}),
        ("python3 -c 'print(os.cpu_count())'", {CORES}),
        ("gcc -march=x86-64 -c arch/x86/kernel/uname.c -o arch/x86/nproc.o", set()),
        ("gcc -DARCH=arch -Iinclude/arch/ -c search.c", set()),
        ("echo monarch archive arch.c my-uname uname_x nprocs", set()),
        ("gcc -DMODE=natively", {CPU}),
        ("gcc -c native.c -Inative -o lib/native/a.uname.o", set()),
        ("cp -tp dir; cat platform.c sysctl.c my.uname os.uname.txt", set()),
        ("", set()),
    ],
)
def test_a_question_is_found_by_its_words(text: str, asked: set[Question]) -> None:
    assert questions_in(text) == asked


@each_row(
    ("change", "unlike"),
    [
        ({"cpu_features": b"others"}, {CPU}),
        ({"cpu": "the same processor under another name"}, set()),
        ({"kernel": "Linux 6.2"}, {KERNEL}),
        ({"cores": 3}, {CORES}),
        ({"cores_online": 4}, {CORES}),
        ({"architecture": "aarch64"}, {CPU, KERNEL, CORES}),
    ],
)
def test_a_machine_differs_in_what_was_asked_for(change: dict[str, object], unlike: set[Question]) -> None:
    theirs = msgspec.structs.replace(OURS, **change)
    assert {kind for kind in Question if not answers_alike(frozenset([kind]), OURS, theirs)} == unlike
    assert answers_alike(frozenset(), OURS, theirs), "who asks nothing runs anywhere"


def test_a_fact_that_is_not_known_differs() -> None:
    assert [answers_alike(frozenset([kind]), MachineFacts(), MachineFacts()) for kind in Question] == [False] * 3


def test_a_long_command_costs_some_microseconds() -> None:
    text = "gcc " + " ".join(f"-Iarch/x86/include/generated/{number} -DX{number}=1" for number in range(50))
    started = time.thread_time()
    for _ in range(200):
        assert not questions_in(text)
    assert (time.thread_time() - started) / 200 < 200e-6
