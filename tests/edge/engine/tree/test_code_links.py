"""Symlinks of the user that lead to hooks and settings are known, as far as the tree was read."""

from pathlib import Path

from termite.engine.decide.logic.later_code import find_later_code, leads_to_later_code
from termite.engine.model import Attr, Change
from termite.engine.tree.master_tree import MasterTree
from tests.edge.engine.tree.tree_jobs import serve, tree_path


def begin(home: MasterTree, root: Path) -> None:
    home.notes.code_links.begin(lambda link: leads_to_later_code(link, tree_path(root), home.may_have))


def found(home: MasterTree, root: Path, name: str) -> list[bytes]:
    links = home.notes.code_links.ways()
    change = Change(tree_path(root / name), Attr(0o100644, 0, 1))
    return find_later_code([change], tree_path(root), home.may_have, links)


async def test_a_file_behind_such_a_symlink_makes_code_run_later(home: MasterTree, root: Path) -> None:
    for directory in ("tools/hooks", ".git/hooks", "sub", "conf/cargo"):
        (root / directory).mkdir(parents=True)
    (root / ".githooks").symlink_to("tools/hooks")
    (root / ".git/hooks/pre-push").symlink_to("../../tools/check.sh")
    (root / "sub/.cargo").symlink_to("../step")
    (root / "step").symlink_to(root / "conf/cargo")
    (root / "lib.so").symlink_to("lib.so.1")
    begin(home, root)
    assert found(home, root, "tools/hooks/pre-commit") == [b"tools/hooks/pre-commit"]
    assert found(home, root, "tools/check.sh") == [b"tools/check.sh"]
    assert found(home, root, "conf/cargo/config.toml") == [], "nobody has read that directory"
    await serve(home, root / "sub")
    assert found(home, root, "conf/cargo/config.toml") == [b"conf/cargo/config.toml"]
    for name in ("tools/x", "lib.so.1", "conf/cargo/registry/x", "hooks/pre-commit"):
        assert found(home, root, name) == [], name


async def test_the_symlink_counts_as_it_is_now(home: MasterTree, root: Path, tmp_path: Path) -> None:
    await serve(home, root)
    begin(home, root)
    link = root / ".husky"
    link.symlink_to("a")
    home.drain()
    assert found(home, root, "a/x") == [b"a/x"]
    link.unlink()
    link.symlink_to("b")
    assert (found(home, root, "a/x"), found(home, root, "b/x")) == ([], [b"b/x"])
    link.unlink()
    assert found(home, root, "b/x") == []
    (tmp_path / "out").mkdir()
    (tmp_path / "out/back").symlink_to(root / "c")
    link.symlink_to(tmp_path / "out/back")
    home.drain()
    assert home.notes.code_links.ways() == [(tree_path(link), ())], "no result is written where it leads"
    link.unlink()
    link.symlink_to(".husky")  # for ever
    assert home.notes.code_links.ways()


async def test_symlinks_beyond_the_limit_are_not_followed(home: MasterTree, root: Path) -> None:
    for number in range(120):
        (root / f"d{number}").mkdir()
        (root / f"d{number}/.envrc").symlink_to("x")
    begin(home, root)
    await serve(home, *(root / f"d{number}" for number in range(120)))
    assert len(home.notes.code_links.ways()) == 100


async def test_hooks_that_are_linked_between_two_builds_are_known_in_the_second(home: MasterTree, root: Path) -> None:
    (root / ".git/hooks").mkdir(parents=True)
    begin(home, root)
    (root / ".git/hooks/post-commit").symlink_to("../../check.sh")
    assert found(home, root, "check.sh") == []
    home.notes.code_links.look()
    assert found(home, root, "check.sh") == [b"check.sh"]
