"""Tests of the private places that the text of a command names, with symlinks on a disk."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from termite.engine.decide import private_places as module
from termite.engine.decide.private_places import PrivatePlaces


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a writable root beside the private directory `secret`. All else is visible."""
    for name in ("project", "project/sub", "secret", "public"):
        (tmp_path / name).mkdir()
    for name in ("project/x", "secret/x", "public/x"):
        (tmp_path / name).touch()
    return tmp_path / "project"


def places_of(project: Path) -> PrivatePlaces:
    secret = bytes(project.parent / "secret").strip(b"/")

    def find_private(path: bytes, *, is_spelled: bool, listed: bytes) -> bytes:
        return secret if f"/{path.decode()}/".startswith(f"/{secret.decode()}/") else b""

    return PrivatePlaces(str(project), find_private)


@pytest.fixture
def place_in(project: Path) -> Callable[[str], str]:
    """Return a function that replaces S by the private directory, and says whether it is found."""
    secret = str(project.parent / "secret")
    return lambda text: (
        places_of(project).place_in(text.replace("S/", secret + "/"), str(project), {}).replace(secret, "S")
    )


@pytest.mark.parametrize(
    "text",
    [
        "cat S/x",
        "S/x --version",
        "rm -rf S/",
        "rm -f S/*",
        "cat 'S/x'",
        'cat "S/x"',
        "cat ../secret/x",
        "cat sub/../../secret/x",
        "cd sub && cat S/x",
        "(cat x)>S/y",
        "make DESTDIR=S/ install",
        "cc -IS/ -c x",
        "cc -LS/ x",
        "cc -oS/y x",
        "cc -DA=1 S/x",
        "cc -DA=S/x S/x",
        "tool -rpath S/x S/y",
        "tool -rpath S/x S/x",
        "a:S/x",
        "cat S/nothing/below",
        "rm -f S/{a,b}",
        "ls S/$unknown",
        "echo x >${unset:-S/x}",
        "cc x -Wl,--version-script=S/x",
        "cc x -Wl,-rpath,/usr/lib,-LS/ -lx",
        "cc x -Wl,-T,S/x",
        "cc -isystemS/ -c x",
        "ls -R S/",
        "cd sub && cat ../../secret/x",
        "cd sub; cat ../../secret/x",
        "(cd sub && cat ../../secret/x)",
        "true && cd sub && cd .. && cat ../secret/x",
        "cd S/ && cat x",
        "cd sub && cat S/x",
    ],
)
def test_a_private_path_is_found(place_in: Callable[[str], str], text: str) -> None:
    assert place_in(text) == "S"


@pytest.mark.parametrize(
    "text",
    [
        "true",
        "secret",
        "cat x sub/y",
        "cat ../public/x",
        "cc -DP=S/x -c x",
        "cc '-DP=\"S/x\"' -c x",
        "cc x -Wl,-rpath,S/x",
        "cc x -Wl,-rpath -Wl,S/x -Wl, -Wl,,",
        "cc x -Wl,--as-needed,-rpath=S/x,-soname,S/x,-z,now",
        "rustc --remap-path-prefix=S/=x x",
        "rustc --remap-path-prefix S/=x x",
        "libtool --mode=link cc -rpath S/x x",
        "cc -ffile-prefix-map=S/x=. -c x",
        "cat zS/x",
        "cd sub && cat ../secret/x",
        "cd sub || exit; cat ../secret/x",
        "",
        "\0 \ud800",
    ],
)
def test_all_else_is_not(place_in: Callable[[str], str], text: str) -> None:
    assert place_in(text) == ""


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("rm -rf ~/x", True),
        ("rm -rf $HOME/x", True),
        ("rm -rf ${D}/x", True),
        ("rm -rf $D", True),
        ("a=$D/x", True),
        ("echo x~/y", False),
        ("for i in a; do cat $i/x; done", False),
        ("cc -DHOME=$HOME/x", False),
        ("ls ~", True),
        ("find ~ -name x", True),
        ("(ls ~)", True),
        ("cat ~/{x,y}", True),
        ("awk '$1 ~ /x/' x", False),
        ("awk '$1 ~ y' x", False),
        ('cat "$D"/x', True),
        ('rm -f "$D"/*', True),
        ("cd; ls", True),
        ("cd && ls", True),
        ("x; cd", True),
        ("sh -c 'cd'", True),
        ("cd sub && ls", False),
        ("cd sub; ls", False),
        ("x.cd; abcd", False),
        ("cat ${HOME%/}/x", True),
        ("cat ${HOME:-/nothing}/x", True),
        ("HOME=$HOME PATH=$HOME/bin:/bin x", False),
        ('export PATH="$HOME/bin:$PATH"', False),
        ("PATH=$HOME/other:$PATH x", True),
        ("DESTDIR=$D/x make", True),
    ],
)
def test_variables_in_the_text_count(project: Path, text: str, is_found: bool) -> None:
    secret = str(project.parent / "secret")
    env = {"HOME": secret, "D": secret, "DESTDIR": f"{secret}/x", "PATH": f"/bin:{secret}/bin"}
    assert places_of(project).place_in(text, str(project), env) == (secret if is_found else "")


@pytest.mark.parametrize(
    "text",
    [
        "cat way/x",
        "rm -rf way/*",
        "rm -rf way",
        "cat ./way/x",
        "cat sub/../way/x",
        "cat file",
        "cc -Iway -c x",
        "cc x -Lway -lz",
        "cc -c x -oway/x.o",
        "cc -isystemway x",
        "cc '-Iway' x",
        "cc x -Wl,-Lway",
    ],
)
def test_a_symlink_counts_as_what_it_leads_to(project: Path, text: str) -> None:
    (project / "way").symlink_to(project.parent / "secret")
    (project / "file").symlink_to("../secret/x")
    assert places_of(project).place_in(text, str(project), {}) == str(project.parent / "secret")


def test_relative_paths_count_from_the_directory_of_the_command(project: Path) -> None:
    places = places_of(project)
    assert places.place_in("cat ../../secret/x", str(project / "sub"), {}) == str(project.parent / "secret")
    assert places.place_in("cat ../../secret/x", str(project), {}) == ""
    assert places.place_in("cat x", str(project.parent / "secret"), {}) == str(project.parent / "secret")
    above = "../" * len(project.parts)
    assert places.place_in(f"cat {above}{project.parent}/secret/x", str(project), {}) == str(project.parent / "secret")


def test_a_symlink_that_was_made_meanwhile_is_found(project: Path) -> None:
    places = places_of(project)
    assert places.place_in("cat way/x; cat way/sub/x; cc -Iway x", str(project), {}) == ""
    (project / "way").symlink_to(project.parent / "secret")
    assert places.place_in("cat way/x", str(project), {}) == str(project.parent / "secret")
    assert places.place_in("cat way/sub/x", str(project), {}) == str(project.parent / "secret")
    assert places.place_in("cc -Iway x", str(project), {}) == str(project.parent / "secret")


@pytest.mark.parametrize(
    ("word", "listed"),
    [
        ("P/*.h", "*.h"),
        ("P/x*", "x*"),
        ("'P'/*.h", "*.h"),
        ("P/[xy].h", "[xy].h"),
        ("P/x{1,2}.h", "x*"),
        ("P/*.{h,c}", "*"),
        ("P/*/x", "*"),
        ("P/*$y", "*"),
        ("P/x", ""),
        ("P/$x", ""),
    ],
)
def test_a_pattern_of_the_shell_counts_for_the_entries_of_its_directory(project: Path, word: str, listed: str) -> None:
    asked: list[tuple[bytes, bytes, bool]] = []

    def find_private(path: bytes, *, is_spelled: bool, listed: bytes) -> bytes:
        asked.append((path, listed, is_spelled))
        return b""

    places, public = PrivatePlaces(str(project), find_private), project.parent / "public"
    places.place_in(f"cat {word.replace('P', str(public))}", str(project), {})
    path, pattern, is_spelled = asked[-1]
    assert (pattern, is_spelled) == (listed.encode(), True)
    assert path == bytes(public).strip(b"/") + (b"/x" if word == "P/x" else b"")
    places.place_in(f"cat {word.replace('P', '../public')}", str(project), {})
    assert asked[-1] == (path, pattern, False), "the text does not spell the path out"


def test_a_place_outside_that_was_made_meanwhile_is_found(project: Path) -> None:
    found: list[bytes] = []
    places = PrivatePlaces(str(project), lambda path, **_: found[0] if found else b"")
    assert places.place_in("cat /nowhere/at/all", str(project), {}) == ""
    found.append(b"nowhere")
    assert places.place_in("cat /nowhere/at/all", str(project), {}) == "/nowhere"


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watched(project: Path, clock: Clock) -> tuple[PrivatePlaces, list[bytes]]:
    """Return places in which all that is called `late` is private, and the asked paths."""
    asked: list[bytes] = []

    def find_private(path: bytes, *, is_spelled: bool, listed: bytes) -> bytes:
        asked.append(path)
        head, found, _ = path.partition(b"/late")
        return head + found if found and Path(f"/{(head + found).decode()}").exists() else b""

    return PrivatePlaces(str(project), find_private, clock), asked


TEXTS = ["cc -IP/late -c x", "cc -IP/late/a/b -c x", "cc P/late:P/none -c x", "cat way/late", "cc ../public/late"]


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_missing_in_a_directory_that_has_not_changed_is_not_asked_for_again(
    project: Path, watched: tuple[PrivatePlaces, list[bytes]], clock: Clock, text: str
) -> None:
    public, (places, asked) = project.parent / "public", watched
    (project / "way").symlink_to(public)
    text = text.replace("P", str(public))
    for clock.now_s in (0, module.SETTLED_S):
        assert places.place_in(text, str(project), {}) == ""
    count = len(asked)
    assert places.place_in(text, str(project), {}) == ""
    assert len(asked) == count
    (public / "late").mkdir()
    assert places.place_in(text, str(project), {}) == f"{public}/late"


@pytest.mark.parametrize("text", TEXTS[:3])
def test_a_directory_that_has_just_changed_may_change_again_without_a_trace(
    project: Path, watched: tuple[PrivatePlaces, list[bytes]], clock: Clock, text: str
) -> None:
    public, (places, asked) = project.parent / "public", watched
    text = text.replace("P", str(public))
    for clock.now_s in (0, module.SETTLED_S / 2):
        count = len(asked)
        assert places.place_in(text, str(project), {}) == ""
        assert len(asked) > count
    clock.now_s = 1.0
    (public / "other").touch()
    for _ in range(2):
        count = len(asked)
        assert places.place_in(text, str(project), {}) == ""
        assert len(asked) > count


def test_where_times_are_whole_seconds_a_directory_must_rest_longer(
    project: Path, watched: tuple[PrivatePlaces, list[bytes]], clock: Clock
) -> None:
    """A name that appears in the second of the last change leaves the times as they were."""
    public, (places, asked) = project.parent / "public", watched
    module_stamp = module._stamp

    def coarse(directory: str) -> tuple[int, ...]:
        device, inode, mtime_ns, ctime_ns, size, links = module_stamp(directory)
        return device, inode, mtime_ns // 10**9 * 10**9, ctime_ns // 10**9 * 10**9, size, links

    text = f"rm -rf {public}/late"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_stamp", coarse)
        for clock.now_s in (0, 1.0, 2.0):
            count = len(asked)
            assert places.place_in(text, str(project), {}) == ""
            assert len(asked) > count
        clock.now_s = module.COARSE_SETTLED_S
        places.place_in(text, str(project), {})
        count = len(asked)
        assert places.place_in(text, str(project), {}) == ""
        assert len(asked) == count


def test_a_missing_word_stays_unknown_when_its_directory_has_settled_again(
    project: Path, watched: tuple[PrivatePlaces, list[bytes]], clock: Clock
) -> None:
    public, (places, _) = project.parent / "public", watched
    for clock.now_s in (0, 1):
        assert places.place_in(f"cc {public}/late {public}/none", str(project), {}) == ""
    (public / "late").mkdir()
    for clock.now_s in (2, 3):
        assert places.place_in(f"cc {public}/none", str(project), {}) == ""
    assert places.place_in(f"cc {public}/late", str(project), {}) == f"{public}/late"


def test_below_something_that_is_missing_the_disk_is_not_asked(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places, asked = places_of(project), list[str]()
    lstat = os.lstat

    def counted(path: str) -> os.stat_result:
        asked.append(path)
        return lstat(path)

    monkeypatch.setattr(os, "lstat", counted)
    places.place_in("cc sub/x", str(project), {})
    del asked[:]
    assert places.place_in("cc -o sub/a/b/c/d/e/x.o", str(project), {}) == ""
    assert len(asked) <= 3


def test_a_cache_that_the_command_does_not_need_is_none(project: Path) -> None:
    places, secret = places_of(project), str(project.parent / "secret")
    text = f"ccache {secret}/x"
    assert places.place_in(text, str(project), {}, lambda path: path == f"{secret}/x") == ""
    assert places.place_in(text, str(project), {}, lambda path: False) == secret


def test_descriptors_are_those_of_the_command(project: Path) -> None:
    """A log file in a private home may be the error stream of the master."""
    asked: list[bytes] = []
    places = PrivatePlaces(str(project), lambda path, **_: asked.append(path) or b"")  # type: ignore[func-returns-value]
    places.place_in("cat /dev/stdin /dev/fd/1 >/dev/stderr 2>/proc/self/fd/2", str(project), {})
    assert asked == [b"dev/stdin", b"dev/fd/1", b"dev/stderr", b"proc/self/fd/2"]


def test_a_word_is_looked_up_once_in_a_build(project: Path) -> None:
    asked: list[bytes] = []
    places = PrivatePlaces(str(project), lambda path, **_: asked.append(path) or b"")  # type: ignore[func-returns-value]
    for _ in range(3):
        places.place_in(f"cat {project.parent}/public/x", str(project), {})
    assert len(asked) == 1
    places.begin_build()
    places.place_in(f"cat {project.parent}/public/x", str(project), {})
    assert len(asked) == 2


def test_what_is_kept_is_limited(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEPT", 3)
    monkeypatch.setattr(module, "MAX_WORDS", 10)
    places = places_of(project)
    text = " ".join(f"sub/{number}" for number in range(9))
    assert places.place_in(text, str(project), {}) == ""
    assert places.place_in(f"{text} ../secret/x", str(project), {}) == str(project.parent / "secret")


def test_a_fifo_or_a_socket_is_found_and_no_other_file(project: Path) -> None:
    os.mkfifo(project / "fifo")
    (project / "link").symlink_to("sub/../fifo")
    os.mkfifo(project.parent / "public/fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(project / "sub/socket"))
    places = places_of(project)
    for text, found in (
        ("cat fifo", "fifo"),
        ("echo x >link", "fifo"),
        ("cd sub && nc -U ./socket", "sub/socket"),
        ("nc -U sub/socket", "sub/socket"),
        ("cat x sub/y ../public/x", ""),
        ("echo x >../public/fifo", "../public/fifo"),
        ("cc -DA=fifo", ""),
    ):
        place = places.place_in(text, str(project), {})
        assert place == (os.path.normpath(project / found) if found else ""), text
        assert places.is_meeting_place(place) == bool(found)


def test_a_fifo_that_appears_later_is_found(project: Path) -> None:
    places = places_of(project)
    places.see_fifos(0)
    assert places.place_in("mkfifo fifo", str(project), {}) == ""
    os.mkfifo(project / "fifo")
    places.see_fifos(1)
    assert places.place_in("cat fifo", str(project), {}) == str(project / "fifo")
    (project / "fifo").unlink()
    (project / "fifo").touch()
    assert places.place_in("cat fifo", str(project), {}) == ""
