"""Test how the programs of the user's search path are shown."""

import os
import stat
from pathlib import Path

import pytest

from termite.engine.errors import Reason, Retryable
from termite.engine.model import Attr, Change
from termite.engine.tree.disk_follower import DiskFollower
from termite.engine.tree.master_tree import MasterTree
from termite.engine.tree.tools.programs import way_to
from termite.engine.tree.tools.tool_homes import ToolPlace, environments, is_too_wide
from tests.edge.engine.tree.tree_jobs import changed_since, serve, tree_path


def write(path: Path, text: str = "#!/bin/sh\n", mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


async def listing(tree: MasterTree, directory: Path) -> dict[bytes, Attr]:
    return (await tree.directory(tree_path(directory)))[2]


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    (tmp_path / "closed").mkdir(mode=0o700)
    return tmp_path / "closed"


async def test_the_names_of_programs_are_shown_and_nobody_gets_their_contents(home: MasterTree, closed: Path) -> None:
    program = write(closed / "bin" / "tool", "#!/bin/sh\necho secret\n", 0o4755)
    write(closed / "bin" / "empty", "")
    write(closed / "bin" / "notes", "text", 0o644)
    (closed / "bin" / "sub").mkdir()
    (closed / "bin" / "cat").symlink_to("/bin/cat")
    (closed / "bin" / "dangling").symlink_to("nowhere")
    home.show_tools((), [bytes(closed / "bin")])
    names = await listing(home, closed / "bin")
    assert sorted(names) == [b"cat", b"empty", b"tool"]
    assert stat.S_ISLNK(names[b"cat"].mode), "what jobs see is not sealed"
    sealed = names[b"tool"]
    assert (sealed.mode, sealed.size, sealed.digest) == (stat.S_IFREG | 0o755, program.stat().st_size, None)
    assert names[b"empty"].size == 1, "an empty file is never opened at the master"
    for name in ("tool", "empty"):
        with pytest.raises(Retryable) as error:
            attr = names[name.encode()]
            await home.open_file(tree_path(closed / "bin" / name), attr.size, attr.mtime_ns)
        assert error.value.reason is Reason.UNSEEN_PROGRAM
        assert error.value.detail == str(closed / "bin" / name)
    assert sorted(await listing(home, closed)) == [b"bin"]


async def test_programs_that_come_and_go_are_noticed(home: MasterTree, closed: Path) -> None:
    (closed / "bin").mkdir()
    home.show_tools((), [bytes(closed / "bin")])
    await serve(home, closed / "bin")
    at = home.drain()
    write(closed / "bin" / "tool")
    await home.recheck_settled()
    assert (await changed_since(home, closed / "bin", at)).keys() == {"tool"}
    at = home.number
    (closed / "bin" / "tool").unlink()
    await home.recheck_settled()
    assert (await changed_since(home, closed / "bin", at)) == {"tool": None}


async def test_a_directory_served_before_gets_the_names(home: MasterTree, closed: Path, tmp_path: Path) -> None:
    """A mirror has heard that it is empty."""
    write(closed / "bin" / "tool")
    for directory in (tmp_path.parents[-2], *reversed(tmp_path.parents[:-2]), tmp_path):
        await serve(home, directory)
    at = home.number
    home.show_tools((), [bytes(closed / "bin")])
    changes = {change.path for changeset in home.changesets_since(at) for change in changeset.changes}
    shown = [path for path in (tree_path(closed), tree_path(tmp_path)) if path in changes]
    assert shown, changes
    assert b"tool" in await listing(home, closed / "bin")


async def test_settings_of_another_home_do_not_list_all_program_directories_again(
    home: MasterTree, closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(closed / "bin" / "tool")
    home.show_tools((), [bytes(closed / "bin")])
    await serve(home, closed / "bin")
    checked: list[bytes] = []

    def note(follower: DiskFollower, directory: bytes) -> list[Change]:
        checked.append(directory)
        return []

    monkeypatch.setattr(DiskFollower, "check_directory", note)
    home.show_tools([ToolPlace(bytes(closed / "home" / ".gitconfig"), is_watched=False, is_sealed=True)], ())
    assert tree_path(closed) in checked and tree_path(closed / "bin") not in checked
    home.show_tools([ToolPlace(bytes(closed / "home" / "tool"), is_watched=False)], ())
    assert tree_path(closed / "bin") in checked, "its programs may lead to the tool"


async def test_a_tool_is_shown_with_the_links_that_lead_to_it(home: MasterTree, closed: Path) -> None:
    write(closed / "store" / "v1.2" / "bin" / "tool")
    write(closed / "store" / "v1.2" / "credentials", "secret", 0o600)
    write(closed / "letters")
    (closed / "store" / "v1").symlink_to("v1.2")
    (closed / "tools").symlink_to(closed / "store")
    home.show_tools([ToolPlace(bytes(closed / "tools" / "v1"), is_watched=False)], ())
    assert sorted(await listing(home, closed)) == [b"store", b"tools"]
    assert sorted(await listing(home, closed / "store")) == [b"v1", b"v1.2"]
    assert sorted(await listing(home, closed / "store" / "v1.2")) == [b"bin"]
    assert sorted(await listing(home, closed / "store" / "v1.2" / "bin")) == [b"tool"]


def test_the_way_to_a_path_names_every_link(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "a").symlink_to("real")
    (tmp_path / "real" / "b").symlink_to("../a/deep")
    (tmp_path / "loop").symlink_to("loop")
    top = bytes(tmp_path)
    assert way_to(top + b"/a/b/x") == ([top + b"/a", top + b"/real/b", top + b"/a"], top + b"/real/deep/x")
    assert way_to(top + b"/real/./deep/../none") == ([], top + b"/real/none")
    links, _ = way_to(top + b"/loop/x")
    assert set(links) == {top + b"/loop"}
    assert way_to(b"/") == ([], b"/")


def test_of_a_home_that_is_an_environment_only_parts_are_shown(closed: Path) -> None:
    write(closed / "pyvenv.cfg", "home = /usr/bin\n")
    write(closed / "bin" / "python3")
    (closed / ".ssh").mkdir()
    found = {os.fsdecode(tool.path) for tool in environments([f"{closed}/bin"], [str(closed)])}
    assert found == {f"{closed}/bin", f"{closed}/pyvenv.cfg"}
    for wide in (closed, closed.parent, Path("/"), closed / ".local", closed / ".config"):
        assert is_too_wide(bytes(wide), [str(closed)]), wide
    assert not is_too_wide(bytes(closed / "tool"), [str(closed)])


def test_what_cannot_be_looked_at_in_path_is_no_environment(tmp_path: Path) -> None:
    """Skip another user's directory in PATH, as after su. A long name fails for root too."""
    venv = write(tmp_path / "closed" / "venv" / "pyvenv.cfg", "home = ../relative\nother = x\n").parent
    venv.parent.chmod(0o700)
    path = [f"/{'x' * 300}/bin", f"{venv}/bin", f"{tmp_path}/other/bin"]
    assert [tool.path for tool in environments(path, ["/nobody"])] == [bytes(venv)]


def test_environments_in_a_circle_end(closed: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        write(closed / name / "pyvenv.cfg", f"home = {closed}/{other}/bin\n")
    assert {tool.path for tool in environments([f"{closed}/a/bin"], [])} == {bytes(closed / "a"), bytes(closed / "b")}
