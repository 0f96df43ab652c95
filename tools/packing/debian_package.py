"""Pack termite for Debian: the product tree, man pages, completions, units and their settings.

dpkg-deb of Debian's package dpkg writes the archive. Everything else is in packaging/debian.
"""

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from packing.product_tree import copy_tree
from packing.release import CHECKOUT, PYTHON, PackingError, Release

SOURCES = CHECKOUT / "packaging" / "debian"
HOME = Path("usr/lib/termite")
INTERNAL = {"termite-sandbox", "termite-front-end"}  # only termite starts them
UNITS = ("termite-coordinator.service", "termite-worker.service")
SCRIPTS = ("postinst", "prerm", "postrm")
COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions",
    "zsh": "usr/share/zsh/vendor-completions",
    "tcsh": "usr/share/termite/tcsh",
}
_COPYRIGHT = """\
termite is under the Apache License 2.0, which follows. /usr/lib/termite has other packages, too:
the Python packages' licences are in the folders *.dist-info there, and that of libfuse3 is in
termite.libs.

"""


def build_debian_package(release: Release, tree: Path, glibc: str, directory: Path, level: int) -> Path:
    """Pack the product tree `tree`, whose files need `glibc`, such as "2.34". Return the package.

    Raise PackingError if this machine has no dpkg-deb.
    """
    if shutil.which("dpkg-deb") is None:
        raise PackingError("dpkg-deb is missing: install Debian's package dpkg")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        copy_tree(tree, root / HOME)
        _add_commands(root)
        _add_pages(root)
        _add_settings(root)
        _add_licence(root)
        _add_control(release, root, glibc)
        _set_modes(root)
        package = directory / f"termite_{release.version}_{release.debian_machine}.deb"
        words = ["dpkg-deb", "--root-owner-group", "-Zxz", f"-z{level}", "--build", str(root), str(package)]
        env = {**os.environ, "SOURCE_DATE_EPOCH": str(release.epoch_s)}
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env=env)
    return package


def _add_commands(root: Path) -> None:
    """Link the commands from /usr/bin. They find each other by the targets of the links."""
    (root / "usr/bin").mkdir(parents=True)
    for path in sorted((root / HOME / "bin").glob("termite*")):
        if path.name not in INTERNAL:
            (root / "usr/bin" / path.name).symlink_to(f"../lib/termite/bin/{path.name}")


def _add_pages(root: Path) -> None:
    """Add man pages and completions, which come from the parsers of the commands."""
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch)
        subprocess.run([sys.executable, str(CHECKOUT / "tools" / "command_pages.py"), scratch], check=True)
        for page in (made / "man/man1").iterdir():
            _zip(page.read_bytes(), root / "usr/share/man/man1" / f"{page.name}.gz")
        for shell, place in COMPLETIONS.items():
            shutil.copytree(made / "completions" / shell, root / place)


def _add_settings(root: Path) -> None:
    for unit in UNITS:
        _copy(unit, root / "usr/lib/systemd/system" / unit)
    _copy("sysusers.conf", root / "usr/lib/sysusers.d/termite.conf")
    for name in ("coordinator.conf", "worker.conf"):
        _copy(name, root / "etc/termite" / name)


def _add_licence(root: Path) -> None:
    place = root / "usr/share/doc/termite"
    _zip((CHECKOUT / "CHANGELOG.md").read_bytes(), place / "changelog.gz")
    (place / "copyright").write_text(_COPYRIGHT + (CHECKOUT / "LICENSE").read_text())


def _add_control(release: Release, root: Path, glibc: str) -> None:
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    sums = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(root)}\n" for path in files]
    settings = [f"/{path.relative_to(root)}\n" for path in files if path.is_relative_to(root / "etc")]
    facts = {"version": release.version, "architecture": release.debian_machine, "python": PYTHON, "glibc": glibc}
    size_kib = sum(path.stat().st_size // 1024 + 1 for path in files)
    control = root / "DEBIAN"
    control.mkdir()
    (control / "control").write_text((SOURCES / "control.in").read_text().format(**facts, size_kib=size_kib))
    (control / "md5sums").write_text("".join(sums))
    (control / "conffiles").write_text("".join(settings))
    for script in SCRIPTS:
        _copy(script, control / script)


def _copy(name: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(SOURCES / name, target)


def _zip(content: bytes, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(gzip.compress(content, mtime=0))


def _set_modes(root: Path) -> None:
    """Give each file the mode that it has in the package, whatever the modes in the checkout."""
    for path in root.rglob("*"):
        if not path.is_symlink():
            is_script = path.parent == root / "DEBIAN" and path.name in SCRIPTS
            is_program = path.is_dir() or is_script or (path.parent == root / HOME / "bin")
            path.chmod(0o755 if is_program else 0o644)
