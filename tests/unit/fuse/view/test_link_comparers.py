"""Commands that name a program which compares inode numbers, and others."""

import pytest

from termite.fuse.view.link_comparers import names_comparer


@pytest.mark.parametrize(
    "text",
    [
        "ln a b && tar cf t a b",
        "ln a b;/bin/tar cf t .",
        "ln a b; rsync -aH a b ../x",
        "ln a b; find . -links +1",
        "ln a b; du -s .",
        "ln a b; [ a -ef b ] && x",
        "ln a b; (stat -c %i a b)",
        "ln a b; python3 -c 'import os; print(os.stat(\"a\").st_ino)'",
        "ln a b; dpkg-deb --build x",
    ],
)
def test_a_program_that_compares_is_found(text: str) -> None:
    assert names_comparer((b"sh", b"-c", text.encode()))


@pytest.mark.parametrize(
    "text",
    [
        "ln a b; touch c",
        "ln one two; echo x >>two; cat one",
        "ln a.tar b.tar; gcc -c x.c",
        "ln a start; ./start",
        "ln b c; stat -c %a a c; ls -l",
    ],
)
def test_other_commands_stay(text: str) -> None:
    assert not names_comparer((b"sh", b"-c", text.encode()))
