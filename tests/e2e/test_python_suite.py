"""Python's own tests of files and processes end in jobs as they end in a plain build.

They are those of Debian, which `tools/setup.sh tests` unpacks. Each module is a command of one
build.
"""

import os
from collections.abc import Iterator

import pytest

from termite.engine.errors import Reason
from tests.e2e.cluster import Tree, embedded, new_tree
from tests.e2e.conftest import USERS, MakePlace
from tests.e2e.places import CHECKOUT

LIMIT_S = 300
PYTHON = "/usr/bin/python3"  # the suite is of Debian's Python
SUITE = CHECKOUT / ".venv" / "python-suite" / "usr" / "lib" / "python3.11"
NAMES = """
os mailbox shutil posix posixpath tempfile pathlib glob fcntl mmap stat fileio filecmp dbm_dumb
"""
MODULES = [f"test_{name}" for name in NAMES.split()]
# They take minutes together on a busy machine. largefile writes files of 2.5 GB.
LONG = ["test_subprocess", "test_tarfile", "test_zipfile", "test_largefile"]
# They ask for the space of a disk; as root they also give files away, or become another user.
TIED = {"test_os", "test_posix", "test_shutil", "test_subprocess", "test_tarfile"}
RECIPE = "{module}: ; @mkdir -p tmp/$@; {test} --tempdir $(CURDIR)/tmp/$@ $@ >$@.out 2>&1; echo $@ $$?\n"
TEST = f"PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={SUITE} {PYTHON} -m test -v"

# In a job, `d_ino` of a directory differs from its `st_ino`. Overlayfs does so if its layers are on
# several file systems (docs/develop/decisions/sandbox.md).
KNOWN = {"test_attributes"}


@pytest.fixture(params=USERS)
def project(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[Tree]:
    if not (SUITE / "test" / "test_os.py").exists():
        pytest.skip("Python's own tests are not there (tools/setup.sh tests, on Debian 12)")
    with make_place(request.param) as where, embedded(new_tree(where)) as tree:
        yield tree


def failed_tests(tree: Tree, module: str) -> set[str]:
    """Return the names of the tests of a module that failed, or a text if it ended otherwise."""
    lines = (tree.path / f"{module}.out").read_text(errors="replace").splitlines()
    names = {line.split()[1] for line in lines if line.startswith(("FAIL: ", "ERROR: "))}
    return names or {"\n".join(lines[-5:])}


def test_it_ends_as_in_a_plain_build(project: Tree) -> None:
    modules = [*MODULES, *LONG] if os.environ.get("TERMITE_WHOLE_SUITE") else MODULES
    rules = "".join(RECIPE.format(module=module, test=TEST) for module in modules)
    project.write("Makefile", f"all: {' '.join(modules)}\n{rules}")
    done = project.make("-s", "-j2", "all", timeout_s=LIMIT_S, env={"TERMITE_SHORT": "0"})
    codes = dict(line.split() for line in done.stdout.decode().splitlines())
    assert {*codes} == {*modules}, done
    for module in (module for module, code in codes.items() if code != "0"):
        in_job = failed_tests(project, module)
        plain = project.plain("make", "-s", module, timeout_s=LIMIT_S)
        expected = set() if plain.stdout.split()[-1:] == [b"0"] else failed_tests(project, module)
        assert in_job - expected <= KNOWN, (module, in_job, expected)
    status = project.status()
    here = sum(status["fallbacks"].values())
    print(f"{len(modules) - here} of {len(modules)} modules on a worker")
    reasons = {*status["fallbacks"]}
    of_root = set() if project.where.uid else {Reason.FOREIGN_IDS, Reason.ATTRIBUTES_SET}
    assert reasons <= {Reason.SPACE_ASKED, *of_root}
    assert here <= len(TIED.intersection(modules)), done.stderr
    assert status["jobs"]["remote"] >= len(modules) - here
