"""Results that would make code run later are found, whatever their directory; others are not."""

import time

import pytest

from termite.engine.decide.logic.later_code import find_later_code
from termite.engine.model import Attr, Change

ROOT = b"home/u/project"
FILE, LINK, DIRECTORY = 0o100644, 0o120777, 0o040755


def found(name: str, mode: int = FILE, root: bytes = ROOT) -> list[bytes]:
    path = root + b"/" + name.encode() if root else name.encode()
    return find_later_code([Change(path, Attr(mode, 0, 1))], root)


@pytest.mark.parametrize("above", ["", "a/", "a/b c/"])
@pytest.mark.parametrize(
    "name",
    [
        ".git/hooks/post-commit",
        ".git/hooks",
        ".git/config",
        ".git/config.worktree",
        ".git/commondir",
        ".git/modules/sub/config",
        ".git/modules/sub/hooks/pre-push",
        ".git/worktrees/w/config.worktree",
        ".git",
        ".GIT/hooks/post-commit",
        ".hg/hgrc",
        ".hg",
        ".envrc",
        ".termite-localrc",
        ".bashrc",
        ".profile",
        ".ssh/authorized_keys",
        ".ssh",
        ".config/systemd/user/x.service",
        ".vscode/tasks.json",
        ".gdbinit",
        ".git/rebase-merge/git-rebase-todo",
        ".git/worktrees/w/sequencer/todo",
        ".pdbrc",
        ".pdbrc.py",
        ".Rprofile",
        ".irbrc",
        ".ghci",
        ".tmux.conf",
        ".vim/plugin/x.vim",
        ".vim",
        ".emacs.d/init.el",
        ".jj/repo/config.toml",
        ".jj/repo/config",
        ".shosts",
        ".rvmrc",
        ".inputrc",
        ".bashrc.d/x",
        ".config/hg/hgrc",
        ".config/nvim/init.lua",
        ".config/direnv/direnvrc",
        ".config/emacs/init.el",
        ".config/zsh/.zshrc",
        ".config/x/.config/git/config",
        ".local/share/systemd/user/x.service",
        "bare.git/config",
        "bare.git/hooks/post-receive",
        "bare.git/hooks",
        "bare/HEAD",
        "HEAD",
    ],
)
def test_a_file_that_a_later_program_executes_is_found(above: str, name: str) -> None:
    assert found(above + name) == [(above + name).encode()]
    assert found(above + name, LINK) == [(above + name).encode()]
    assert found(above + name, root=b"") == [(above + name).encode()]


@pytest.mark.parametrize("mode", [0o104755, 0o102755, 0o106711, 0o104000])
def test_a_program_with_rights_of_its_owner_is_found(mode: int) -> None:
    assert found("bin/tool", mode) == [b"bin/tool"]


def test_a_directory_with_the_rights_of_its_owner_is_found() -> None:
    assert found("shared", 0o044755) == [b"shared"]


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("src/x.o", FILE),
        (".git", DIRECTORY),
        (".git/hooks", DIRECTORY),
        (".git/objects/ab/cdef", FILE),
        (".git/index", FILE),
        (".git/HEAD", FILE),
        (".github/config", FILE),
        (".gitignore", FILE),
        ("x.git/hooks.c", FILE),
        ("my.git", FILE),
        ("head", FILE),
        ("AHEAD", FILE),
        ("AHEAD/HEADER", FILE),
        (".git/modules/x/HEAD", FILE),
        (".github/workflows/config", FILE),
        (".local/share/x", FILE),
        (".config/app/settings", FILE),
        ("hooks/x", FILE),
        (".deps/x.Po", FILE),
        (".libs/lib.so", FILE),
        ("envrc", FILE),
        ("a.bashrc", FILE),
        ("shared", 0o042775),
        ("sticky", 0o101644),
    ],
)
def test_what_builds_make_is_not(name: str, mode: int) -> None:
    assert found(name, mode) == []


def test_the_directories_above_the_tree_do_not_count() -> None:
    assert found("config", root=b"home/u/.git") == []
    assert found("hooks/x", root=b"home/u/.git") == []
    assert found(".git/config", root=b"home/u/.git") == [b".git/config"]


def test_a_path_outside_the_tree_counts_from_the_root_of_the_machine() -> None:
    changes = [Change(b"tmp/.gdbinit", Attr(FILE, 0, 1)), Change(b"tmp/a.o", Attr(FILE, 0, 1))]
    assert find_later_code(changes, ROOT) == [b"tmp/.gdbinit"]


@pytest.mark.parametrize("name", [b".git", b".jj", b".hg", b".config", b".local", b"x.git", b".vimr", b"a"])
@pytest.mark.parametrize("end", [b"/x", b"/hooks.", b"/config."])
def test_a_path_of_many_directories_takes_no_time(name: bytes, end: bytes) -> None:
    """A hostile worker makes the longest path that a message takes. Quadratic time is minutes."""
    path = ROOT + (b"/" + name) * (250_000 // (len(name) + 1)) + end
    started_s = time.process_time()
    assert find_later_code([Change(path, Attr(FILE, 0, 1))], ROOT) == []
    assert time.process_time() - started_s < 1


def test_a_deletion_runs_nothing() -> None:
    assert find_later_code([Change(ROOT + b"/.git/hooks/x", None)], ROOT) == []
