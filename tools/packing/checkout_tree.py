"""Make the product tree of a checkout whose set-up is done, without a compiler and a wheel.

`termite-ctl add` packs such a tree, and sends it to other machines. Sources come from the checkout,
and native programs from .venv.
"""

import os
import shutil
import sys
from importlib import metadata
from pathlib import Path

from packing.product_tree import INSTALLED, SITE_PACKAGES, add_scripts, begin_tree, finish_tree
from packing.programs import is_elf
from packing.release import CHECKOUT, PackingError

_NOTES = ("METADATA", "WHEEL", "entry_points.txt")


def make_checkout_tree(directory: Path) -> None:
    """Make the tree in the new directory `directory`.

    Raise PackingError if .venv lacks termite or a pinned package, or if a file needs a library that
    is neither in the tree nor in every system.
    """
    begin_tree(directory)
    packages, programs = directory / SITE_PACKAGES, directory / "bin"
    shutil.copytree(CHECKOUT / "termite", packages / "termite", ignore=shutil.ignore_patterns("__pycache__"))
    for path in Path(sys.executable).parent.glob("*termite*"):
        if not path.is_symlink() and is_elf(path):
            shutil.copy(path, programs / path.name)
    found = next(iter(metadata.distributions(name="termite", path=[str(INSTALLED)])), None)
    notes = {name: found.read_text(name) for name in _NOTES} if found else {}
    if found is None or not notes["entry_points.txt"] or not (programs / "termite-sandbox").exists():
        raise PackingError("termite is not in .venv: run make setup")
    (place := packages / f"termite-{found.version}.dist-info").mkdir()
    for name, text in notes.items():
        (place / name).write_text(text or "")
    add_scripts(programs, notes["entry_points.txt"] or "")
    finish_tree(directory)


def main() -> int:
    """Make the tree in the directory that the first word names, and return the exit code."""
    os.umask(0o022)
    try:
        make_checkout_tree(Path(sys.argv[1]))
    except PackingError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
