"""GNU make's own test suite with `termite-make` in place of make, every command of it remote."""

import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.cluster import Tree
from tests.e2e.places import IS_ROOT
from tests.front_ends.suites import all_scripts, command, copy_suite, read_results

# Scripts whose results differ from those with stock make if all their commands are remote, and why.
DIFFERENT = {
    "features/parallelism": "its jobs wait for files that other jobs make while both run: a job sees what was there "
    "when it began, and what it makes is there when it has ended",
    "features/output-sync": "one of its jobs waits for a file that another one makes while both run",
}
# The results are the same if the commands by which jobs wait for each other are local. This is the
# rule for such commands. With Recurse they hold no slot, and so do not wait for each other's slots.
WITH_RULE = "with-a-rule"
RULES = json.dumps([{"Regexp": f"{WITH_RULE}/tests/thelp|mksync", "Local": True, "Recurse": True}])

SHARDS = 3  # the suite mostly sleeps
MAKE_TIMEOUT_S = 60  # for one make; the suite's own limit of 5 s is for local commands
SUITE_TIMEOUT_S = 400

pytestmark = pytest.mark.timeout(SUITE_TIMEOUT_S + 60)


def test_it_gives_the_results_of_stock_make(tree: Tree, source: Path) -> None:
    suite = copy_suite(source, tree.path / "suite", timeout_s=MAKE_TIMEOUT_S)
    scripts = all_scripts(suite)
    assert len(scripts) > 120
    remote = [name for name in scripts if name not in DIFFERENT]
    rules = Path(tree.status()["root"]) / ".termite-localrc"
    rules.write_text(RULES)
    before = tree.jobs()
    with ThreadPoolExecutor() as pool:
        plain = pool.submit(_run, tree, suite, "stock", scripts)
        runs = [pool.submit(_run, tree, suite, f"termite{at}", remote[at::SHARDS]) for at in range(SHARDS)]
        runs.append(pool.submit(_run, tree, suite, WITH_RULE, list(DIFFERENT)))
        results = {name: result for run in runs for name, result in run.result().items()}
        stock = plain.result()
    rules.unlink()
    assert len(stock) > 120
    assert tree.jobs() - before > 1000
    different = {name for name in stock if results.get(name) != stock[name]}
    if different:  # some scripts depend on time; one that differs for a reason differs twice
        again = _run(tree, suite, "again", sorted(different))
        assert again == {name: stock[name] for name in different}


def _run(tree: Tree, suite: Path, name: str, scripts: list[str]) -> dict[str, str]:
    """Run the scripts in a copy of the suite, and return their results.

    `make` and $(MAKE) are termite-make, except in the run called "stock".
    """
    copy = tree.path / name
    shutil.copytree(suite, copy)
    links = tree.path / f"{name}-bin"
    links.mkdir()
    (links / "make").symlink_to("/usr/bin/make" if name == "stock" else tree.where.termite("termite-make"))
    if IS_ROOT:
        subprocess.run(["chown", "-R", f"{tree.where.uid}:{tree.where.uid}", copy, links], check=True)
    env = {"PATH": f"{links}:/usr/bin:/bin", "SHELL": "/bin/sh", "LANG": "C"}
    done = tree.where.run(
        command(copy, links / "make", scripts), copy / "tests", env=env, merge=True, timeout_s=SUITE_TIMEOUT_S
    )
    return read_results(done.stdout)
