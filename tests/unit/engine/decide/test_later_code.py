"""Results that would make code run later are found, whatever their directory; others are not."""

import pytest

from termite.engine.decide.logic.later_code import (
    _DEEP,
    _NEAR,
    find_later_code,
    leads_to_later_code,
)
from termite.engine.model import Attr, Change
from tests.unit.tables import each_row

ROOT = b"home/u/project"
FILE, LINK, DIRECTORY = 0o100644, 0o120777, 0o040755


def found(name: str, mode: int = FILE, root: bytes = ROOT) -> list[bytes]:
    path = root + b"/" + name.encode() if root else name.encode()
    return find_later_code([Change(path, Attr(mode, 0, 1))], root)


@each_row("above", ["", "a/", "a/b c/"])
@each_row(
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
        ".termite-at",
        ".tool-versions",
        ".husky/pre-commit",
        ".husky/_/husky.sh",
        ".githooks/pre-push",
        ".githooks",
        ".direnv/flake-profile.rc",
        ".zed/tasks.json",
        ".helix/languages.toml",
        ".vscode/mcp.json",
        ".cargo/config.toml",
        ".cargo/bin/cargo",
        ".mvn/jvm.config",
        ".repo/repo/main.py",
        ".repo/repo",
        ".jj/repo",
        ".jj/repo/store/git_target",
        ".local/bin/ls",
        ".idea/workspace.xml",
        ".devcontainer/devcontainer.json",
        ".devcontainer.json",
        ".bazelrc",
        ".npmrc",
        ".yarnrc.yml",
        ".yarn/releases/yarn-4.cjs",
        ".pnp.cjs",
        ".iex.exs",
        ".erlang",
        ".perldb",
        ".latexmkrc",
        "latexmkrc",
        "_darcs/prefs/defaults",
        ".pijul/config",
        ".config/gdb/gdbinit",
        ".config/tmux/tmux.conf",
        ".config/fish/config.fish",
        ".config/autostart/x.desktop",
        ".config/go/env",
        ".local/lib/python3.11/site-packages/x.pth",
        ".ssh/rc",
        ".pypirc",
        ".gradle/init.d/x.gradle",
        ".m2/settings.xml",
        ".aws/config",
        ".kube/config",
        ".docker/cli-plugins/docker-x",
        ".gnupg/gpg-agent.conf",
        ".selected_editor",
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


def words_of_tables() -> dict[bytes, bytes]:
    return {**_DEEP, **_NEAR}


def test_a_symlink_on_the_way_to_every_place_of_the_tables_is_found() -> None:
    """The ways are made of the tables by other means here, so that no entry can be forgotten."""
    ways = set()
    for top, words in words_of_tables().items():
        for word in words.split():
            names = [top, *word.strip(b"/").split(b"/")]
            ways |= {b"/".join(names[:count]).decode() for count in range(1, len(names) + 1)}
    assert {".cargo", ".mvn", ".local", ".repo", ".cargo/bin", ".local/bin", ".local/share", ".git"} <= ways
    for way in ways:
        assert found(way, LINK) == [way.encode()], way
        assert found(f"a/{way}", LINK, root=b"") == [f"a/{way}".encode()], way


@pytest.mark.parametrize("name", [".git/modules", ".git/worktrees/w", ".jj/x", ".git/modules/sub/x"])
def test_a_symlink_in_a_repository_is_found(name: str) -> None:
    assert found(name, LINK) == [name.encode()]


@each_row("way", [".cargo", ".local/share", ".config/git", ".idea", ".git/modules"])
def test_a_name_of_another_file_may_be_one_of_a_symlink(way: str) -> None:
    change = Change(ROOT + b"/" + way.encode(), Attr(FILE, 0, 1), ROOT + b"/x")
    assert find_later_code([change], ROOT) == [way.encode()], "a worker says that it is a file"


@each_row(
    ("path", "mode", "is_found"),
    [
        ("tools/hooks/pre-push", FILE, True),
        ("tools/hooks/sub/x", FILE, True),
        ("tools/hooks", LINK, True),
        ("tools", LINK, True),
        ("tools/hooks", DIRECTORY, False),
        ("tools/hooks2/pre-push", FILE, False),
        ("tools", FILE, False),
        ("conf/cargo/config.toml", FILE, True),
        ("conf/cargo/registry/x", FILE, False),
        ("conf/cargo", LINK, True),
        ("step", LINK, True),
        ("conf/env", FILE, True),
    ],
)
def test_what_lies_behind_a_symlink_of_the_user_counts(path: str, mode: int, *, is_found: bool) -> None:
    links = [
        (ROOT + b"/.githooks", (ROOT + b"/tools/hooks",)),
        (ROOT + b"/.cargo", (ROOT + b"/step", ROOT + b"/conf/cargo")),
        (ROOT + b"/.envrc", (ROOT + b"/conf/env",)),
    ]
    change = Change(ROOT + b"/" + path.encode(), Attr(mode, 0, 1))
    assert find_later_code([change], ROOT) == []
    assert find_later_code([change], ROOT, links=links) == ([path.encode()] if is_found else [])
    if is_found and mode == FILE:
        second = Change(ROOT + b"/x", Attr(FILE, 0, 1), change.path)
        assert find_later_code([second], ROOT, links=links) == [b"x"]


def test_links_to_later_code_are_known_by_their_names() -> None:
    for name in (".githooks", ".git/hooks/pre-commit", "a/.cargo", ".local/share", ".vscode/settings.json"):
        assert leads_to_later_code(ROOT + b"/" + name.encode(), ROOT), name
    for name in ("node_modules/.bin/tsc", "lib.so", ".venv", "src/config"):
        assert not leads_to_later_code(ROOT + b"/" + name.encode(), ROOT), name


@pytest.mark.parametrize("mode", [0o104755, 0o102755, 0o106711, 0o104000])
def test_a_program_with_rights_of_its_owner_is_found(mode: int) -> None:
    assert found("bin/tool", mode) == [b"bin/tool"]


def test_a_directory_with_the_rights_of_its_owner_is_found() -> None:
    assert found("shared", 0o044755) == [b"shared"]


@each_row(
    ("name", "mode"),
    [
        ("src/x.o", FILE),
        (".git", DIRECTORY),
        (".git/hooks", DIRECTORY),
        (".git/objects/ab/cdef", FILE),
        (".git/index", FILE),
        (".git/HEAD", FILE),
        (".github/config", FILE),
        ("node_modules/x/.npmrc", FILE),
        (".cargo/registry/x", FILE),
        (".mvn/wrapper/maven-wrapper.jar", FILE),
        (".repo/project.list", FILE),
        (".jj/repo/store/extra/x", FILE),
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
        (".config", FILE),  # of Kconfig: Linux, busybox, buildroot
        (".config", DIRECTORY),
        (".config.old", FILE),
        (".cargo", DIRECTORY),
        (".local/share", DIRECTORY),
        (".cargo/registry", LINK),
        (".local/share/x", LINK),
        (".git-hooks.txt", LINK),
        ("node_modules/x/.yarnrc.yml", FILE),
        (".gradle/8.5/checksums/checksums.lock", FILE),
        (".yarn/cache/x.zip", FILE),
        ("_darcs/hashed_inventory", FILE),
        ("src/config", LINK),
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


@pytest.mark.parametrize(
    "name",
    [
        ".g\u200cit/config",
        ".git\ufeff/hooks/post-commit",
        "\u2060.envrc",
        ".ba\u017fhrc",  # long s
        ".\u00dfh/rc",  # sharp s
        ".con\ufb01g/git/config",  # ligature
        ".git./config",
        ".git . /hooks/x",
        ".envrc.",
        "a. /.GIT /config",
    ],
)
def test_other_spellings_of_a_name_count(name: str) -> None:
    assert found(name) == [name.encode()]


def found_in(repository: str, name: str, link_to: str | None = None) -> tuple[list[bytes], list[bytes]]:
    asked: list[bytes] = []

    def has_entry(path: bytes) -> bool:
        asked.append(path)
        return path == ROOT + b"/" + repository.encode() + b"/HEAD"

    change = Change(ROOT + b"/" + name.encode(), Attr(FILE, 0, 1))
    if link_to:
        change = Change(change.path, change.attr, ROOT + b"/" + link_to.encode())
    return find_later_code([change], ROOT, has_entry), asked


@pytest.mark.parametrize(
    "name", ["config", "config.worktree", "commondir", "hooks/pre-push", "hooks", "sequencer/todo", "rebase-merge/done"]
)
@pytest.mark.parametrize("repository", [".bare", "git dirs/x", "x.git/worktrees/w", ".git\u200c"])
def test_a_repository_of_any_name_has_hooks_and_settings(repository: str, name: str) -> None:
    path = f"{repository}/{name}"
    assert found_in(repository, path)[0] == [path.encode()]
    assert found_in("elsewhere", path)[0] == ([path.encode()] if repository.startswith(".git") else [])
    assert found_in(repository, "other", link_to=path)[0] == [b"other"]


def test_only_what_may_be_of_a_repository_costs_a_look() -> None:
    for name in ("a.o", "config.h", "hooks.c", "src/HEAD.c", "sub/commondir.o"):
        assert found_in("sub", name) == ([], [])
    assert found_in("x", "src/hooks/use.js") == ([], [ROOT + b"/src/HEAD"])
    assert found_in("x", "hooks/use.js") == found_in("x", "config") == ([], [ROOT + b"/HEAD"])
    assert found_in("x", "a" + 9 * "/hooks" + "/x")[0], "nobody looks for ever"


def test_a_link_to_later_code_is_found() -> None:
    change = Change(ROOT + b"/x", Attr(FILE, 0, 1), ROOT + b"/.git/hooks/pre-push")
    assert find_later_code([change], ROOT) == [b"x"]


def test_the_directories_above_the_tree_do_not_count() -> None:
    assert found("config", root=b"home/u/.git") == []
    assert found("hooks/x", root=b"home/u/.git") == []
    assert found(".git/config", root=b"home/u/.git") == [b".git/config"]
    assert find_later_code([Change(ROOT + b"/hooks/x", Attr(FILE, 0, 1))], ROOT + b"/hooks", lambda path: True) == []


def test_a_path_outside_the_tree_counts_from_the_root_of_the_machine() -> None:
    changes = [Change(b"tmp/.gdbinit", Attr(FILE, 0, 1)), Change(b"tmp/a.o", Attr(FILE, 0, 1))]
    assert find_later_code(changes, ROOT) == [b"tmp/.gdbinit"]


def test_a_deletion_runs_nothing() -> None:
    assert find_later_code([Change(ROOT + b"/.git/hooks/x", None)], ROOT) == []
