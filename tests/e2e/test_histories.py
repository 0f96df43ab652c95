"""Random histories of local and remote commands: a job always sees the tree that is there.

There are few names, so that files, directories, symlinks and hard links often replace each other.
A history is a number, and a failure prints its steps.
"""

import random

import pytest

from tests.e2e.cluster import Cluster, Tree

STEPS = 12
NAMES = "abcd"
# Sorted, messages too: overlayfs lists a directory in another order.
LOOK = r"""{
    find w ! -type d -printf '%y %m %p %l %s %n %T@\n'
    find w -type d -printf '%m %p %T@\n'
    find w -type f -exec cksum {} +
} 2>&1 | sort"""


def history(seed: int) -> list[list[tuple[bool, str]]]:
    """Return steps of (remote, command line). A command that fails changes nothing more."""
    draw = random.Random(seed)
    return [
        [
            (draw.random() < 0.6, "; ".join(f"{_command(draw)} 2>/dev/null" for _ in range(draw.randint(1, 4))))
            for _ in range(draw.randint(1, 4))
        ]
        for _ in range(STEPS)
    ]


def _command(draw: random.Random) -> str:
    one, other, number = _path(draw), _path(draw), draw.randint(1, 10**6)
    return draw.choice(
        [
            f"mkdir -p {one}",
            f"mkdir -p {one}; echo {number} >{one}/a",
            f"echo {number} >{one}",
            f"echo {number} >>{one}",
            f"head -c {number // 4} /dev/zero >{one}",
            f"cat {one} {other} >w/sum",
            f"cp -a {one} {other}",
            f"mv -T {one} {other}",
            f"ln -f {one} {other}",
            f"ln -sfn {draw.choice(NAMES)} {one}",
            f"chmod {draw.choice(('755', '700', '555'))} {one}",
            f"touch -d @{number} {one}",
            f"rm -f {one}",
            f"rm -rf {one}",
            f"rm -rf {one}; mkdir -p {one}; echo {number} >{one}/a",
            f"for i in 1 2 3 4 5 6 7 8 9; do echo $i >{one}$i; done",
        ]
    )


def _path(draw: random.Random) -> str:
    return "/".join(["w", *(draw.choice(NAMES) for _ in range(draw.randint(1, 4)))])


def follow(tree: Tree, seed: int) -> None:
    done: list[tuple[bool, str]] = []
    tree.mkdir("w")
    for step in history(seed):
        for is_remote, line in step:
            done.append((is_remote, line))
            (tree.termite if is_remote else tree.plain)("sh", "-c", line)
        far, near = tree.termite("sh", "-c", LOOK), tree.plain("sh", "-c", LOOK)
        differences = set(far.stdout.splitlines()) ^ set(near.stdout.splitlines())
        assert not differences, done
        assert far == near, done


@pytest.mark.parametrize("seed", range(4))
def test_a_job_sees_what_all_commands_before_it_have_done(tree: Tree, seed: int) -> None:
    follow(tree, seed)


@pytest.mark.parametrize("seed", range(10, 13))
def test_it_sees_the_same_on_whatever_worker(two_workers: Cluster, seed: int) -> None:
    follow(two_workers.tree.subtree(f"history{seed}"), seed)
