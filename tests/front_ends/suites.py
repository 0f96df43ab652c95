"""Run GNU make's own test suite, of Debian's source package and of 3.82."""

import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

RESULT = re.compile(
    r"^(\w+/[\w.-]+) \.{3,} .*?(ok +\(\d+ passed\)|FAILED \(\d+/\d+ passed\)|N/A)", re.MULTILINE | re.DOTALL
)


def copy_suite(source: Path, tree: Path, *, timeout_s: int = 5) -> Path:
    """Copy what the suite needs, and configure it as ./configure does here.

    Each make that the suite starts may run for `timeout_s`.
    """
    for name in ("tests", "src"):
        if (source / name).is_dir():  # 3.82 has no src
            shutil.copytree(source / name, tree / name)
    values = {"AM_LDFLAGS": "-Wl,--export-dynamic", "AR": "ar", "CC": "gcc", "CPP": "gcc -E", "USE_SYSTEM_GLOB": "yes"}
    template = tree / "tests" / "config-flags.pm.in"
    if template.exists():
        flags = re.sub(r"@(\w+)@", lambda match: values.get(match[1], ""), template.read_text())
        (tree / "tests" / "config-flags.pm").write_text(flags)
    driver = tree / "tests" / "test_driver.pl"
    text = driver.read_text()
    assert "$test_timeout = 5;" in text
    driver.write_text(text.replace("$test_timeout = 5;", f"$test_timeout = {timeout_s};"))
    return tree


def command(tree: Path, make: Path, scripts: Iterable[str]) -> list[str]:
    where = ["-srcdir", str(tree)] if (tree / "src").is_dir() else []
    # -I.: the suite of 3.82 expects a perl that searches the current directory for modules.
    return ["perl", "-I.", "run_make_tests.pl", *where, "-make", str(make), *scripts]


def run_suite(
    tree: Path, make: Path, scripts: Iterable[str], timeout_s: int, env: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Run the scripts, and return the result of each in the suite's words."""
    done = subprocess.run(
        command(tree, make, scripts),
        cwd=tree / "tests",
        env={"PATH": "/usr/bin:/bin", "LANG": "C", **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=timeout_s,
    )
    return read_results(done.stdout)


def read_results(output: bytes) -> dict[str, str]:
    return dict(RESULT.findall(output.decode(errors="replace")))


def all_scripts(tree: Path) -> list[str]:
    scripts = tree / "tests" / "scripts"
    return sorted(str(path.relative_to(scripts)) for path in scripts.glob("*/*") if path.is_file())
