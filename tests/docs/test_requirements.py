"""Every Python package that the set-up installs is pinned with hashes, which pip must check."""

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
FILES = sorted(CHECKOUT.glob("requirements*.txt"))
PINNED = re.compile(r"[a-z0-9-]+==[\w.]+( \\\n    --hash=sha256:[0-9a-f]{64})+")


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_every_package_has_a_version_and_hashes(file: Path) -> None:
    lines = [line for line in file.read_text().splitlines(keepends=True) if not line.startswith(("#", "-r "))]
    text = "".join(lines)
    assert re.sub(PINNED, "", text).strip() == ""
    assert PINNED.search(text)


@pytest.mark.parametrize("script", ["tools/setup.sh", "tools/audit.sh"])
def test_what_is_installed_by_name_is_checked_against_its_hashes(script: str) -> None:
    text = (CHECKOUT / script).read_text().replace("\\\n", " ").replace('"$PWD', "")
    installs = re.findall(r"(?:install=\"|pip\s+)install\s.*", text)
    own = [line for line in installs if "--no-deps -e ." in line]  # termite itself, from this checkout
    assert [line for line in installs if line not in own and "--require-hashes" not in line] == []
    assert len(installs) > len(own)


def test_the_audit_asks_about_all_packages_but_its_own() -> None:
    named = re.findall(r"-r (requirements\S*\.txt)", (CHECKOUT / "tools/audit.sh").read_text())
    asked = set(named) - {"requirements-audit.txt"}
    waiting = list(asked)
    while waiting:
        included = re.findall(r"(?m)^-r (\S+)$", (CHECKOUT / waiting.pop()).read_text())
        waiting += set(included) - asked
        asked |= set(included)
    assert asked == {file.name for file in FILES} - {"requirements-audit.txt"}
