"""Python's own tests of files and processes end in jobs as they end in a plain build.

Debian has them in libpython3-testsuite. Each module is a command of one build.
"""

import subprocess
from collections.abc import Iterator

import pytest

from termite.engine.errors import Reason
from tests.e2e.cluster import Tree, embedded, new_tree
from tests.e2e.conftest import USERS, MakePlace

LIMIT_S = 110
PYTHON = "/usr/bin/python3"  # the suite is of Debian's Python
NAMES = """
subprocess tarfile os zipfile mailbox shutil posix posixpath tempfile
pathlib glob fcntl mmap largefile stat fileio filecmp dbm_dumb
"""
MODULES = [f"test_{name}" for name in NAMES.split()]
OF_ROOT = ["test_tarfile", "test_os", "test_shutil"]  # modules that give files away
RECIPE = "{module}: ; @mkdir -p tmp/$@; {test} --tempdir $(CURDIR)/tmp/$@ $@ >$@.out 2>&1; echo $@ $$?\n"
TEST = f"{PYTHON} -m test -v"

# In a job, `d_ino` of a directory differs from its `st_ino`. Overlayfs does so if its layers are on
# several file systems (docs/develop/decisions/sandbox.md).
KNOWN = {"test_attributes"}


@pytest.fixture(params=USERS)
def project(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[Tree]:
    if subprocess.run([PYTHON, "-c", "import test.test_os"], capture_output=True, check=False).returncode:
        pytest.skip("Python's own tests are not installed (apt-get install libpython3-testsuite)")
    with make_place(request.param) as where, embedded(new_tree(where)) as tree:
        yield tree


def failed_tests(tree: Tree, module: str) -> set[str]:
    """Return the names of the tests of a module that failed, or a text if it ended otherwise."""
    lines = (tree.path / f"{module}.out").read_text(errors="replace").splitlines()
    names = {line.split()[1] for line in lines if line.startswith(("FAIL: ", "ERROR: "))}
    return names or {"\n".join(lines[-5:])}


def test_it_ends_as_in_a_plain_build(project: Tree) -> None:
    modules = MODULES if project.where.uid else OF_ROOT
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
    if project.where.uid:  # test_zipfile writes beside the modules of the system, as a job may
        assert (reasons, here) in ((set(), 0), ({Reason.WRITES_OUTSIDE}, 1)), done.stderr
        assert status["jobs"]["remote"] >= len(modules) - 1
    assert reasons <= {Reason.FOREIGN_IDS, Reason.ATTRIBUTES_SET, Reason.WRITES_OUTSIDE}
