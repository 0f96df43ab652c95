"""Provide places and clusters for the tests of the whole system.

The tests of a module share a cluster, but each has its own directory.
"""

import itertools
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from sources import fetch_source
from tests.e2e.cluster import Cluster, Tree, cluster, embedded, new_tree
from tests.e2e.places import CHECKOUT, IS_ROOT, Place, place

needs_root = pytest.mark.needs_root("makes namespaces and users of its own")

MakePlace = Callable[..., AbstractContextManager[Place]]


@pytest.fixture(scope="session")
def make_place() -> Iterator[MakePlace]:
    """Make a place of a kind of place.sh: `with make_place("bare") as worker:`."""
    # The base lies where homes are, because jobs do not see /tmp and /var/tmp of this machine.
    base = Path(tempfile.mkdtemp(prefix="termite-e2e-", dir="/home" if IS_ROOT else Path.home()))
    base.chmod(0o755)
    numbers = itertools.count(1)

    @contextmanager
    def make(kind: str, *, network: bool = False) -> Iterator[Place]:
        own = base / f"{next(numbers)}-{kind}"
        try:
            with place(kind, own, uuid.uuid4().hex, network=network) as where:
                yield where
        finally:  # at once, because all stores of a run together take minutes
            _remove(own)

    yield make
    _remove(base)


def _remove(directory: Path) -> None:
    subprocess.run(["chmod", "-Rf", "u+rwX", directory], check=False)
    shutil.rmtree(directory)


USERS = [pytest.param("ordinary"), pytest.param("root", marks=needs_root)]


def in_turn(fixture: str, names: str, *rows: Any) -> pytest.MarkDecorator:
    """Run a test for each row of `names`, each for one user, the ordinary one and root in turn.

    `fixture` takes the user as its parameter. A row is a tuple, or a value if there is one name.
    """
    fields = [field.strip() for field in names.split(",")]
    cases = []
    for number, row in enumerate(rows):
        values = row if len(fields) > 1 else (row,)
        user = USERS[number % len(USERS)]
        cases.append(pytest.param(*user.values, *values, marks=user.marks))
    return pytest.mark.parametrize((fixture, *fields), cases, indirect=[fixture])


@pytest.fixture(scope="module", params=USERS)
def shared(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[Tree]:
    """Yield a tree with an embedded cluster for a module, as an ordinary user and as root."""
    with make_place(request.param) as where, embedded(new_tree(where)) as tree:
        yield tree


@pytest.fixture(scope="module")
def two_workers(make_place: MakePlace) -> Iterator[Cluster]:
    """Yield a cluster with two workers, of one ordinary user, for all tests of a module."""
    with make_place("ordinary") as where, cluster(new_tree(where), [where, where]) as whole:
        whole.wait_for_workers(2)
        yield whole


@pytest.fixture
def tree(shared: Tree, request: pytest.FixtureRequest) -> Tree:
    """Return a fresh directory of this test in the shared tree."""
    return shared.subtree(f"{abs(hash(request.node.nodeid)):x}")


@pytest.fixture
def user(make_place: MakePlace) -> Iterator[Place]:
    """Yield a fresh place of an ordinary user."""
    with make_place("ordinary") as where:
        yield where


@pytest.fixture
def places(make_place: MakePlace) -> Iterator[Callable[..., Place]]:
    """Yield a function that makes places, which end with the test."""
    with ExitStack() as stack:
        yield lambda kind, **options: stack.enter_context(make_place(kind, **options))


@pytest.fixture(scope="session")
def source() -> Callable[[str], Path]:
    """Return a function that fetches the unpatched source of a Debian package once, into build/."""
    return lambda package: fetch_source(package, CHECKOUT / "build" / "sources", patched=False)
