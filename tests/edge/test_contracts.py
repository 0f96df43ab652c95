"""Each import contract of pyproject.toml refuses the import that it was written for.

The linter reads a copy of the package, into which one test puts one bad file. The checkout is never
changed. The copy is read without the `site` module, because an editable install would lead the
linter from the copy to the checkout.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = next(above for above in Path(__file__).resolve().parents if (above / "pyproject.toml").exists())
CONTRACTS: list[dict[str, Any]] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"
LAYERS = "termite: imports go down"
ENGINE_LAYERS = "termite.engine: imports go down"
FUSE_LAYERS = "termite.fuse: imports go down"
NO_CERTIFICATES = "A mirror makes no certificates: it would cost each one 9 MB"
MIRROR = "A mirror knows neither the master, the worker, the fleet nor the rules"
WORKER = "A worker knows neither the tree, the rules nor the launchers"
PLUGINS = "Plugins import termite only"
PURE = "What thinks does not wait"
HOOKS = "Hooks of plugins do no I/O"
TEXTS = "Texts for people are functions of records"
CLI_LAYERS = "termite.cli: imports go down"
TREE_LAYERS = "termite.engine.tree: imports go down"
WORKER_LAYERS = "termite.engine.worker: imports go down"
RECALL_LAYERS = "termite.engine.recall: imports go down"
MASTER_LAYERS = "termite.engine.master: imports go down"


@dataclass(frozen=True, slots=True)
class BadFile:
    """A bad file is the contract that refuses it, its module and what the module imports.

    If the module exists, the import is added at its end.
    """

    contract: str
    module: str
    imports: str = ""


BAD_FILES = [
    BadFile(LAYERS, "termite.no_floor"),
    BadFile(LAYERS, "termite.engine.fleet.bad", "termite.plugins.make"),
    BadFile(LAYERS, "termite.fuse.layers.bad", "termite.cli.flags"),
    BadFile(LAYERS, "termite.fuse.layers.bad", "termite.plugins.make"),
    BadFile(ENGINE_LAYERS, "termite.engine.no_floor"),
    BadFile(ENGINE_LAYERS, "termite.engine.store.bad", "termite.engine.fleet.lease"),
    BadFile(ENGINE_LAYERS, "termite.engine.errors", "termite.engine.paths"),
    BadFile(ENGINE_LAYERS, "termite.engine.store.bad", "termite.engine.wire.identity"),
    BadFile(ENGINE_LAYERS, "termite.engine.master.bad", "termite.engine.worker.slot_shares"),
    BadFile(FUSE_LAYERS, "termite.fuse.no_floor"),
    BadFile(FUSE_LAYERS, "termite.fuse.content.bad", "termite.fuse.actions"),
    BadFile(FUSE_LAYERS, "termite.fuse.kernel_requests.bad", "termite.fuse.harvest.collect"),
    BadFile(NO_CERTIFICATES, "termite.fuse.content.bad", "cryptography.x509"),
    BadFile(NO_CERTIFICATES, "termite.fuse.content.bad", "termite.engine.wire.authority"),
    BadFile(MIRROR, "termite.fuse.content.bad", "termite.engine.master.user_notices.notices"),
    BadFile(MIRROR, "termite.fuse.content.bad", "termite.engine.tree.logic.plan"),
    BadFile(WORKER, "termite.engine.worker.bad", "termite.engine.tree.tree_disk"),
    BadFile(WORKER, "termite.engine.worker.bad", "termite.engine.launch.invocation"),
    BadFile(PLUGINS, "termite.plugins.bad", "termite.engine.model"),
    BadFile(PLUGINS, "termite.plugins.bad", "termite.fuse.view.inodes"),
    BadFile(PURE, "termite.engine.tree.logic.bad", "os"),
    BadFile(PURE, "termite.engine.fleet.logic.bad", "trio"),
    BadFile(PURE, "termite.fuse.view.bad", "time"),
    BadFile(PURE, "termite.engine.paths", "termite.engine.loop.fd_watcher"),  # it imports trio
    BadFile(PURE, "termite.engine.fleet.logic.bad", "random"),
    BadFile(PURE, "termite.engine.recall.known.bad", "logging"),
    BadFile(PURE, "termite.engine.recall.look_up.clocks", "datetime"),  # only evidence.py may
    BadFile(HOOKS, "termite.plugins.bad", "subprocess"),
    BadFile(HOOKS, "termite.plugins.known.linkers", "glob"),
    BadFile(TEXTS, "termite.cli.display.bad", "time"),
    BadFile(TEXTS, "termite.cli.display.job_text", "os"),
    BadFile(CLI_LAYERS, "termite.cli.no_floor"),
    BadFile(CLI_LAYERS, "termite.cli.display.bad", "termite.cli.subcommands.registry"),
    BadFile(CLI_LAYERS, "termite.cli.amounts", "termite.cli.places"),
    BadFile(TREE_LAYERS, "termite.engine.tree.no_floor"),
    BadFile(TREE_LAYERS, "termite.engine.tree.tools.bad", "termite.engine.tree.publishing.steps"),
    BadFile(WORKER_LAYERS, "termite.engine.worker.no_floor"),
    BadFile(WORKER_LAYERS, "termite.engine.worker.reports.bad", "termite.engine.worker.worker_daemon"),
    BadFile(RECALL_LAYERS, "termite.engine.recall.look_up.bad", "termite.engine.recall.known.known_table"),
    BadFile(MASTER_LAYERS, "termite.engine.master.no_floor"),
    BadFile(MASTER_LAYERS, "termite.engine.master.remote_runs.bad", "termite.engine.master.run_job"),
    BadFile(MASTER_LAYERS, "termite.engine.master.shared", "termite.engine.master.results"),
]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of the package's Python files and of the contracts, to break in a test."""

    def other_files(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if not name.endswith(".py") and not Path(folder, name).is_dir()]

    shutil.copytree(CHECKOUT / "termite", tmp_path / "termite", ignore=other_files)
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_package_as_it_is_keeps_every_contract(copy: Path) -> None:
    assert broken_contracts(lint(copy)) == []


@pytest.mark.parametrize("bad", BAD_FILES, ids=lambda bad: f"{bad.module}-{bad.imports or 'no-floor'}")
def test_a_wrong_import_breaks_its_contract(copy: Path, bad: BadFile) -> None:
    add_import(copy, bad.module, bad.imports)
    said = lint(copy)
    assert bad.contract in broken_contracts(said), said


def test_every_contract_has_a_bad_file() -> None:
    assert {bad.contract for bad in BAD_FILES} == {contract["name"] for contract in CONTRACTS}


def test_every_pure_room_is_refused_everything_that_waits(copy: Path) -> None:
    contract = next(contract for contract in CONTRACTS if contract["name"] == PURE)
    assert set(contract["forbidden_modules"]) >= {"datetime", "os", "random", "socket", "subprocess", "time", "trio"}
    for room in contract["source_modules"]:
        is_package = (copy / room.replace(".", "/")).is_dir()
        add_import(copy, f"{room}.bad" if is_package else room, ", ".join(contract["forbidden_modules"]))
    said = lint(copy)
    for room in contract["source_modules"]:
        for module in contract["forbidden_modules"]:
            assert f"{room} is not allowed to import {module}:" in said


def test_every_room_called_logic_is_pure() -> None:
    contract = next(contract for contract in CONTRACTS if contract["name"] == PURE)
    rooms = {".".join(path.relative_to(CHECKOUT).parts) for path in (CHECKOUT / "termite").rglob("logic")}
    assert rooms <= set(contract["source_modules"])


def add_import(copy: Path, module: str, imports: str) -> None:
    """Add `import {imports}` to the module's file. If `imports` is empty, only make the file."""
    file = copy / f"{module.replace('.', '/')}.py"
    assert file.parent.is_dir(), f"{module} is in no room of today"
    with file.open("a") as text:
        text.write(f"\nimport {imports}\n" if imports else "")


def lint(copy: Path) -> str:
    """Return what lint-imports prints about the copy."""
    packages = sysconfig.get_paths()["purelib"]
    done = subprocess.run(
        [sys.executable, "-S", "-c", LINT, "--no-logo", "--no-cache"],
        cwd=copy,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{copy}{os.pathsep}{packages}", "COLUMNS": "1000"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, 1) and "Contracts:" in done.stdout, done.stdout + done.stderr
    assert (done.returncode == 1) == bool(broken_contracts(done.stdout)), done.stdout
    return done.stdout


def broken_contracts(said: str) -> list[str]:
    """Return the names of the contracts that the linter calls broken."""
    return re.findall(r"^(.+?) BROKEN(?: \(\d+ ignored imports?\))?$", said, re.MULTILINE)
