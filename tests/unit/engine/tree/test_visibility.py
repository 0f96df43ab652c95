"""Test which files may leave the master, without a disk."""

import stat
import time

import pytest

from termite.engine.tree.logic.visibility import Exports, Visibility
from tests.unit.tables import each_row

FILE = stat.S_IFREG
DIRECTORY = stat.S_IFDIR


def shows(exports: Exports, directory: bytes, name: bytes, mode: int, is_open: bool = True) -> bool:
    return exports.shows(exports.rules(directory), is_open, directory, name, mode)


@pytest.fixture
def exports() -> Exports:
    return Exports(b"home/u/proj", (b"home/u/.cargo",), (b"home/u/proj/private",), (b"home/u/proj/secret.txt",))


@pytest.mark.parametrize("mode", [FILE | 0o600, DIRECTORY | 0o700, stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o600])
def test_below_the_writable_root_everything_is_shown(exports: Exports, mode: int) -> None:
    assert shows(exports, b"home/u/proj/sub", b"x", mode)
    assert shows(exports, b"home/u/.cargo/bin", b"x", mode)


@pytest.mark.parametrize("name", [b"private", b"secret.txt", b".termite-socket", b".termite-staging"])
def test_what_is_hidden_is_not_even_listed(exports: Exports, name: bytes) -> None:
    assert not shows(exports, b"home/u/proj", name, DIRECTORY | 0o755)
    assert not exports.is_writable(b"home/u/proj/" + name)
    assert not exports.is_writable(b"home/u/proj/" + name + b"/below")


@pytest.mark.parametrize("directory", [b"home/u/proj", b"home/u/proj/build/deep"])
def test_staging_directories_are_hidden_wherever_they_are(exports: Exports, directory: bytes) -> None:
    name = b".termite-staging-1f"
    assert not shows(exports, directory, name, DIRECTORY | 0o700)
    assert not exports.is_writable(directory + b"/" + name)
    assert exports.visibility(directory + b"/" + name + b"/below") is Visibility.HIDDEN
    assert exports.is_writable(directory + b"/.termite-stagings")
    assert shows(exports, directory, b"my" + name, DIRECTORY | 0o700)


@pytest.mark.parametrize("kind", [stat.S_IFSOCK, stat.S_IFBLK, stat.S_IFCHR])
def test_sockets_and_devices_stay_at_home(exports: Exports, kind: int) -> None:
    assert not shows(exports, b"home/u/proj", b"x", kind | 0o777)


@each_row(
    ("mode", "is_shown"),
    [
        (FILE | 0o644, True),
        (FILE | 0o640, False),
        (FILE | 0o4755, True),
        (FILE | 0o711, False),
        (DIRECTORY | 0o755, True),
        (DIRECTORY | 0o750, False),
        (DIRECTORY | 0o711, False),
        (stat.S_IFLNK | 0o777, True),
    ],
)
def test_elsewhere_only_what_others_may_read_is_shown(exports: Exports, mode: int, is_shown: bool) -> None:
    assert shows(exports, b"etc", b"x", mode) is is_shown
    assert not shows(exports, b"etc", b"x", mode, is_open=False)


def test_a_single_file_can_be_exported() -> None:
    exports = Exports(b"home/u/proj", (b"root/venv/bin/termite",), (), ())
    assert shows(exports, b"root/venv", b"bin", DIRECTORY | 0o700, is_open=False)
    assert shows(exports, b"root/venv/bin", b"termite", FILE | 0o700, is_open=False)
    assert not shows(exports, b"root/venv/bin", b"python", FILE | 0o755, is_open=False)


def test_the_way_down_is_shown_through_directories_that_nobody_may_list(exports: Exports) -> None:
    assert shows(exports, b"", b"home", DIRECTORY | 0o700, is_open=False)
    assert shows(exports, b"home/u", b"proj", DIRECTORY | 0o700, is_open=False)
    assert not shows(exports, b"home/u", b"mail", DIRECTORY | 0o755, is_open=False)
    assert exports.rules(b"home/u").passages == {b"proj", b".cargo"}


@pytest.mark.parametrize("place", [b"proc", b"sys", b"dev", b"run"])
def test_places_that_every_machine_has_of_its_own_are_shown_empty(exports: Exports, place: bytes) -> None:
    assert exports.visibility(place) is Visibility.PASSAGE
    assert not shows(exports, place, b"x", FILE | 0o644)


@pytest.mark.parametrize("place", [b"tmp", b"var/tmp"])
def test_private_temporary_directories_are_shown_empty(place: bytes) -> None:
    exports = Exports(b"home/u/proj", (), (), (), shares_temporary=False)
    assert exports.temporary == ()
    assert not shows(exports, place, b"x", FILE | 0o644)
    assert not exports.is_writable(place + b"/x")
    assert not exports.is_shared(place + b"/x")


@pytest.mark.parametrize("place", [b"tmp", b"var/tmp"])
def test_shared_temporary_directories_show_what_all_users_may_read(exports: Exports, place: bytes) -> None:
    assert shows(exports, place, b"x", FILE | 0o644)
    assert shows(exports, place, b"x", DIRECTORY | 0o755)
    assert not shows(exports, place, b"x", FILE | 0o600)
    assert not shows(exports, place, b"x", DIRECTORY | 0o700)
    assert exports.is_shared(place + b"/x")
    assert not exports.is_shared(place), "the directory itself is not a job's to change"


@each_row(
    "name", [b"krb5cc_0", b"xauth_x", b".X11-unix", b".X0-lock", b"ssh-x", b"gpg-x", b"tmux-0", b"pulse-x", b"dbus-x"]
)
def test_credentials_and_sockets_in_a_temporary_directory_are_never_shown(exports: Exports, name: bytes) -> None:
    assert not shows(exports, b"tmp", name, FILE | 0o644)
    assert not exports.show(b"tmp/" + name)
    assert not exports.show(b"tmp/" + name + b"/agent.1")
    assert not exports.is_shared(b"tmp/" + name)
    assert not shows(exports, b"tmp", name, FILE | 0o644)


def test_a_private_name_is_shown_when_a_command_names_it(exports: Exports) -> None:
    assert exports.show(b"tmp/dir/deep/file")
    assert shows(exports, b"tmp", b"dir", DIRECTORY | 0o700)
    assert shows(exports, b"tmp/dir", b"deep", DIRECTORY | 0o700, is_open=False)
    assert not shows(exports, b"tmp/dir", b"other", FILE | 0o600, is_open=False)
    assert shows(exports, b"tmp/dir/deep", b"file", FILE | 0o600, is_open=False)
    assert not exports.show(b"tmp/dir/deep/file"), "it is shown already"


def test_the_directory_that_tmpdir_names_is_open_though_it_is_private(exports: Exports) -> None:
    assert exports.choose(b"tmp/user/0")
    assert shows(exports, b"tmp", b"user", DIRECTORY | 0o700)
    assert shows(exports, b"tmp/user", b"0", DIRECTORY | 0o700, is_open=False)
    assert exports.opened_above(b"tmp/user/0/x") == b"tmp/user/0"
    assert exports.opened_above(b"tmp/user") == b""
    assert shows(exports, b"tmp/user/0", b"x", FILE | 0o644)
    assert not shows(exports, b"tmp/user/0", b"x", FILE | 0o600)


def test_the_directory_that_tmpdir_names_is_empty_if_they_are_private() -> None:
    exports = Exports(b"home/u/proj", (), (), (), shares_temporary=False)
    assert exports.choose(b"tmp/user/0")
    assert shows(exports, b"tmp", b"user", DIRECTORY | 0o700)
    assert shows(exports, b"tmp/user", b"0", DIRECTORY | 0o700, is_open=False)
    assert not shows(exports, b"tmp/user/0", b"x", FILE | 0o644)


def test_what_is_excluded_stays_hidden_though_a_command_names_it() -> None:
    exports = Exports(b"home/u/proj", (), (b"tmp/secret", b"var/tmp"), ())
    assert exports.temporary == (b"tmp",)
    assert not exports.show(b"tmp/secret/key")
    assert not exports.choose(b"tmp/secret/key")
    assert not exports.is_shared(b"tmp/secret/key")
    assert not exports.is_shared(b"var/tmp/x")


def test_an_export_below_a_temporary_directory_stays_read_only() -> None:
    exports = Exports(b"home/u/proj", (b"tmp/export",), (), ())
    exports.export(b"tmp/crates", is_watched=True)
    assert not exports.is_writable(b"tmp/export/x")
    assert not exports.is_writable(b"tmp/crates/x")


def test_a_project_below_tmp_is_reached_through_an_otherwise_empty_tmp() -> None:
    exports = Exports(b"tmp/x/proj", (), (), (), shares_temporary=False)
    assert shows(exports, b"tmp", b"x", DIRECTORY | 0o700)
    assert not shows(exports, b"tmp", b"y", DIRECTORY | 0o755)
    assert not shows(exports, b"tmp/x", b"y", DIRECTORY | 0o755)
    assert shows(exports, b"tmp/x/proj", b"y", FILE | 0o600)


def test_the_deepest_anchor_decides() -> None:
    exports = Exports(b"a/b", (), (b"a",), ())
    assert exports.visibility(b"a") is Visibility.HIDDEN
    assert exports.visibility(b"a/b/c") is Visibility.WHOLE
    assert shows(exports, b"", b"a", DIRECTORY | 0o755)
    assert not shows(exports, b"a", b"other", DIRECTORY | 0o755)


def test_a_path_that_only_begins_like_the_writable_root_is_not_below_it(exports: Exports) -> None:
    assert not exports.is_live(b"home/u/project")
    assert not exports.is_writable(b"home/u/project/x")
    assert not exports.is_writable(b"home/u/proj")
    assert exports.is_writable(b"home/u/proj/x")


def test_the_root_itself_can_be_the_writable_root() -> None:
    exports = Exports(b"", (), (), ())
    assert shows(exports, b"root", b"x", FILE | 0o600, is_open=False)
    assert not shows(exports, b"proc", b"1", DIRECTORY | 0o555)
    assert not exports.is_writable(b".termite-socket")
    assert not exports.is_writable(b".termite-staging-1f/x")
    assert not exports.is_writable(b"tmp/x")


def test_a_long_path_is_judged_as_fast_as_a_short_one(exports: Exports) -> None:
    for top, visibility in (
        (b"home/u/proj", Visibility.WHOLE),
        (b"home/u/proj/private", Visibility.HIDDEN),
        (b"usr", Visibility.PUBLIC),
    ):
        for below in (b"", b"/a", b"/a/b", b"/" + b"n" * 100, b"/a" * 200_000):
            started_s = time.process_time()
            assert exports.visibility(top + below) is visibility
            assert time.process_time() - started_s < 0.05


def test_a_tool_is_shown_later_but_for_credentials(exports: Exports) -> None:
    exports.export(b"home/u/.tool/versions", is_watched=True)
    assert shows(exports, b"home/u", b".tool", DIRECTORY | 0o700)
    assert not shows(exports, b"home/u", b".ssh", DIRECTORY | 0o700)
    assert not shows(exports, b"home/u/.tool", b"token", FILE | 0o600)
    assert exports.is_volatile(b"home/u/.tool/versions/1")
    for name, mode, is_shown in (
        (b"python3", FILE | 0o700, True),
        (b"credentials", FILE | 0o644, False),
        (b"credentials", DIRECTORY | 0o755, True),  # of a library
        (b".ssh", DIRECTORY | 0o755, False),
        (b".netrc", FILE | 0o600, False),
        (b"npmrc", stat.S_IFLNK | 0o777, False),
    ):
        assert shows(exports, b"home/u/.tool/versions/1", name, mode) is is_shown, name
    exports.export(b"home/u/proj/private/x", is_watched=False)
    assert exports.visibility(b"home/u/proj/private/x") is Visibility.HIDDEN


def test_what_the_user_exports_has_his_credentials_too(exports: Exports) -> None:
    assert shows(exports, b"home/u/.cargo", b"credentials.toml", FILE | 0o600)
    exports.export(b"home/u/.cargo/bin", is_watched=True)
    assert shows(exports, b"home/u/.cargo", b"credentials.toml", FILE | 0o600), "he has asked for it"


def test_a_directory_of_programs_is_reached_and_says_so(exports: Exports) -> None:
    exports.show_programs(b"home/u/bin")
    assert exports.rules(b"home/u/bin").has_programs
    assert shows(exports, b"home/u", b"bin", DIRECTORY | 0o700)
    assert not shows(exports, b"home/u/bin", b"program", FILE | 0o700)
    for kept in (b"home/u/proj/bin", b"home/u/proj/private/bin"):
        exports.show_programs(kept)
        assert not exports.rules(kept).has_programs, "jobs see the tree as it is"


def test_a_symlink_on_the_way_is_shown_and_nothing_beside_it(exports: Exports) -> None:
    exports.lead_to(b"home/u/link")
    assert shows(exports, b"home/u", b"link", stat.S_IFLNK | 0o777)
    assert not shows(exports, b"home/u", b"link", FILE | 0o600)
    assert not shows(exports, b"home/u", b"other", stat.S_IFLNK | 0o777, is_open=False)


def test_what_everybody_may_read_is_neither_in_the_tree_nor_shown_to_jobs_alone(exports: Exports) -> None:
    assert exports.is_for_everybody(b"usr/bin/gcc") and exports.is_for_everybody(b"tmp/a")
    assert exports.choose(b"tmp/user/0")
    exports.export(b"home/u/tools", is_watched=False)
    for path in (b"tmp/user/0/x", b"home/u/tools/cc", exports.writable_root):
        assert not exports.is_for_everybody(path), path


def test_a_shown_name_that_is_gone_is_private_again_if_another_program_takes_it() -> None:
    exports = Exports(b"home/u/proj", (), (), ())
    assert exports.show(b"tmp/d") and exports.show(b"tmp/e/f")
    assert shows(exports, b"tmp", b"d", DIRECTORY | 0o700) and shows(exports, b"tmp/e", b"f", FILE | 0o600)
    exports.hide(b"tmp/d")
    assert not shows(exports, b"tmp", b"d", DIRECTORY | 0o700)
    assert exports.visibility(b"tmp/d/x") is Visibility.PUBLIC
    assert exports.show(b"tmp/e")
    exports.hide(b"tmp/e")
    assert shows(exports, b"tmp", b"e", DIRECTORY | 0o700), "a way to a name that is shown"
    assert exports.show(b"tmp/d"), "it is new again"
