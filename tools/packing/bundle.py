"""Pack termite for machines that have Python and a C library, but neither pip nor a compiler."""

import tempfile
from pathlib import Path

from packing.archives import write_tar_xz
from packing.product_tree import copy_tree
from packing.release import CHECKOUT, PYTHON, Release

AT_THE_TOP = ("termite-worker", "termite-coordinator", "termite-ctl")
_README = """\
termite {version}, for {machine} with Python {python} and glibc {glibc} or newer.

This directory may be anywhere, and belong to any user. Nothing is installed.

    ./termite-ctl doctor                                          checks this machine
    ./termite-worker -secret secret.txt -coordinator buildhost    lends its cores to the cluster

bin has all commands, also those that build, such as termite-make. To remove termite, end what you
have started, and remove this directory and ~/.cache/termite.
"""


def build_bundle(release: Release, tree: Path, glibc: str, directory: Path, level: int) -> Path:
    """Pack the product tree `tree`, whose files need `glibc` ("2.34"). Return the archive."""
    name = f"termite-{release.version}"
    with tempfile.TemporaryDirectory() as scratch:
        top = Path(scratch) / name
        copy_tree(tree, top)
        for program in AT_THE_TOP:
            (top / program).symlink_to(f"bin/{program}")
        facts = {"version": release.version, "machine": release.machine, "python": PYTHON.removeprefix("python")}
        (top / "README.txt").write_text(_README.format(**facts, glibc=glibc))
        (top / "LICENSE").write_bytes((CHECKOUT / "LICENSE").read_bytes())
        archive = directory / f"{name}-linux-{release.machine}.tar.xz"
        write_tar_xz(release, top, archive, level)
    return archive
