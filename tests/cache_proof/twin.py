"""Build plainly in a copy of a tree, at the same path, and compare what both builds have left.

The copy is mounted over the tree in a mount namespace of the build alone, so that the master does
not see it.
"""

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.e2e.cluster import Tree
from tests.e2e.places import IS_ROOT, Outcome
from tests.e2e.snapshot import snapshot

BUILD_LIMIT_S = 600.0
MOUNT = 'mount --bind "$1" "$2" && cd "$3" && shift 3 && exec "$@"'
# Logs of the build tools, with times.
NOT_COMPARED = re.compile(rb"\.ninja_(?:log|deps)|CMake(?:Output|Error)\.log|CMakeConfigureLog\.yaml")
PARTS = ("kind", "mode", "content", "links")
# The plain build is told to keep the output of a command together, and says where more often.
TOGETHER = {"make": ("-O",), "ninja": ()}
NOT_SAID = re.compile(rb"termite(?:-\w+)?: |make(?:\[\d+\])?: (?:Entering|Leaving) directory|\s*\Z")
PROGRESS = re.compile(rb"^\[\s*\d+[/%]\d*\]? ?")


def copy_tree(source: Path, target: Path) -> None:
    """Copy a tree with modes, owners, times and links into a directory, which is made if needed."""
    subprocess.run(["cp", "-a", "--no-target-directory", source, target], check=True)


def remove_tree(top: Path) -> None:
    """Remove a tree, whatever its modes."""
    if top.exists():
        subprocess.run(["chmod", "-Rf", "u+rwX", top], check=False)
        shutil.rmtree(top)


def run_at(tree: Tree, copy: Path, argv: Sequence[str], within: str, env: Mapping[str, str], umask: int) -> Outcome:
    """Run a plain command in a copy of the tree, as if the copy were the tree."""
    where = tree.where
    mounted = ["sh", "-c", MOUNT, "sh", str(copy), str(tree.path), str(tree.path / within)]
    if IS_ROOT:
        command = [*where.enter, "--wdns=/", "--", "unshare", "--mount", *mounted, *where.become]
    else:
        user = f"--map-user={os.getuid()}", f"--map-group={os.getgid()}"
        command = ["unshare", "--user", "--map-root-user", "--mount", *mounted, "unshare", "--user", *user, "--"]
    done = subprocess.run(
        [*command, *argv],
        cwd="/",
        env={**where.env, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        umask=umask,
        check=False,
        timeout=BUILD_LIMIT_S,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def differences(ours: Path, plain: Path, since_ns: int) -> Iterator[str]:
    """Yield what differs between the trees of both builds, which began at `since_ns`.

    A time that the plain build has set must be the same. Any other one must be new.
    """
    one, other = snapshot(ours), snapshot(plain)
    for path in sorted(one.keys() | other.keys()):
        if NOT_COMPARED.fullmatch(path.rpartition(b"/")[2]):
            continue
        name = os.fsdecode(path)
        if path not in one or path not in other:
            yield f"{name} is in the {'plain' if path in other else 'cached'} tree only"
        elif one[path] != other[path]:
            parts = [part for part in PARTS if getattr(one[path], part) != getattr(other[path], part)]
            yield f"{name} has another {' and '.join(parts)}"
        elif not stat.S_ISDIR(one[path].kind):
            now_ns, right_ns = ((top / name).lstat().st_mtime_ns for top in (ours, plain))
            if (right_ns >= since_ns) != (now_ns >= since_ns) or (right_ns < since_ns and now_ns != right_ns):
                yield f"{name} has another time: {now_ns}, plainly {right_ns}"


def lines_of(output: bytes) -> list[bytes]:
    """Return the lines that commands and the tool wrote, in any order, because jobs run at once."""
    return sorted(
        line for line in (PROGRESS.sub(b"", line) for line in output.splitlines()) if not NOT_SAID.match(line)
    )


def difference_of_outcomes(ours: Outcome, plain: Outcome) -> Iterator[str]:
    """Yield what differs between the exit codes and the outputs of both builds."""
    if ours.code != plain.code:
        yield f"exit code {ours.code}, plainly {plain.code}"
    for name, one, other in (("stdout", ours.stdout, plain.stdout), ("stderr", ours.stderr, plain.stderr)):
        if (here := lines_of(one)) != (there := lines_of(other)):
            more = [line for line in here if line not in there][:3]
            less = [line for line in there if line not in here][:3]
            yield f"{name}: {more} instead of {less}"
