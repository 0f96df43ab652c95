"""Run `make dist`: build the wheel, the bundle and the Debian package into a directory."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from packing.bundle import build_bundle
from packing.debian_package import build_debian_package
from packing.product_tree import make_product_tree, tree_glibc
from packing.release import CHECKOUT, PackingError, this_release
from packing.wheel_file import build_wheel


def main() -> int:
    """Build everything, print the name of each file, and return the exit code."""
    parser = argparse.ArgumentParser("make dist", description="Build the files of a release into a directory.")
    parser.add_argument("directory", type=Path, nargs="?", default=CHECKOUT / "dist")
    level = "how much the archives are compressed; 0 is the quickest (default: 6)"
    parser.add_argument("--level", type=int, choices=range(10), default=6, help=level)
    flags = parser.parse_args()
    os.umask(0o022)
    flags.directory.mkdir(parents=True, exist_ok=True)
    try:
        release = this_release()
        wheel = build_wheel(release, flags.directory)
        _announce(wheel)
        with tempfile.TemporaryDirectory() as scratch:
            tree = Path(scratch) / "tree"
            make_product_tree(release, wheel, tree)
            needed = (tree_glibc(tree), flags.directory, flags.level)
            _announce(build_bundle(release, tree, *needed))
            _announce(build_debian_package(release, tree, *needed))
    except PackingError as error:
        print(f"dist: {error}", file=sys.stderr)
        return 1
    return 0


def _announce(path: Path) -> None:
    print(f"dist: {path.name}, {path.stat().st_size / 1e6:.1f} MB", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
