"""tools/sources.py: source lists for apt, made from those of the machine."""

import pytest

from sources import other_suite

DEB822 = """Types: deb-src
URIs: http://deb.debian.org/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb-src
URIs: http://deb.debian.org/debian-security
Suites: bookworm-security
Components: main
"""
OTHER_DEB822 = """Types: deb-src
URIs: http://deb.debian.org/debian
Suites: sid
Components: main
"""
ONE_LINE = """deb-src [signed-by=/x.gpg] http://deb.debian.org/debian bookworm main
deb-src http://deb.debian.org/debian bookworm-updates main
"""
OTHER_ONE_LINE = "deb-src [signed-by=/x.gpg] http://deb.debian.org/debian sid main\n"


@pytest.mark.parametrize(("text", "other"), [(DEB822, OTHER_DEB822), (ONE_LINE, OTHER_ONE_LINE)])
def test_another_suite_takes_the_place_of_the_release_and_has_no_updates(text: str, other: str) -> None:
    assert other_suite(text, "bookworm", "sid") == other
