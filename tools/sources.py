"""Fetch and unpack packages of Debian, mostly sources, without changing the machine's apt state.

The functions make a private apt state in a directory of their own. Its source lists are the
machine's, with `deb` replaced by `deb-src`. Therefore apt uses the same mirror, proxy and keyring
as the system, but needs no root. Nothing is installed.
"""

import contextlib
import fcntl
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

APT = Path("/etc/apt")
OLDER = 6  # if the newest version cannot be fetched, so many older ones are tried


class SourceError(Exception):
    """A source package cannot be fetched; the text is one line for the user."""


def fetch_source(package: str, directory: Path, *, patched: bool = True, otherwise: str = "") -> Path:
    """Return the pristine source tree of `package`, fetched once and kept in `directory`.

    Copy the tree before building in it. `patched=False` leaves out Debian's patches, so that the
    project is as its authors released it. If no version of this machine's own suite can be fetched,
    the package is taken from the suite `otherwise`. Raise SourceError if that fails too.
    """
    name = package if patched else f"{package}-unpatched"
    tree = directory / name
    with alone_in(directory):
        if not tree.is_dir():
            _fetch(package, tree, patched=patched, otherwise=otherwise)
    return tree


@contextlib.contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Let other processes that make something in `directory` wait, such as other tests."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(package: str, tree: Path, *, patched: bool, otherwise: str) -> None:
    directory, name = tree.parent, tree.name
    download = directory / "download" / name
    shutil.rmtree(download, ignore_errors=True)
    download.mkdir(parents=True)
    try:
        _download(package, _private_apt(directory.resolve() / "apt"), download)
    except SourceError:
        if not otherwise:
            raise
        _download(package, _private_apt(directory.resolve() / f"apt-{otherwise}", otherwise), download)
    (description,) = download.glob("*.dsc")
    # apt has verified the files against the signed index. Without --no-check, dpkg-source would
    # also ask for the maintainers' keyring.
    unpack = ["dpkg-source", "--no-check", *([] if patched else ["--skip-patches"]), "-x", description.name, "tree"]
    _run(unpack, download)
    (download / "tree").rename(tree)


def fetch_binary(package: str, directory: Path, source: str, *, otherwise: str = "") -> Path:
    """Return the files of a binary package, unpacked in `directory`.

    The package is the one that was made from the version of `source` that `fetch_source` fetched.
    Raise SourceError if it cannot be fetched.
    """
    tree = directory / f"{package}-files"
    with alone_in(directory):
        if not tree.is_dir():
            _fetch_binary(package, tree, source, otherwise)
    return tree


def _fetch_binary(package: str, tree: Path, source: str, otherwise: str) -> None:
    directory, name = tree.parent, tree.name
    (description,) = (directory / "download" / source).glob("*.dsc")
    match = re.search(r"^Version: (\S+)$", description.read_text(), re.MULTILINE)
    assert match is not None, description
    download = directory / "download" / name
    shutil.rmtree(download, ignore_errors=True)
    download.mkdir(parents=True)
    try:
        _download_binary(package, match[1], _private_apt(directory.resolve() / "apt-deb", kind="deb"), download)
    except SourceError:
        if not otherwise:
            raise
        apt_options = _private_apt(directory.resolve() / f"apt-deb-{otherwise}", otherwise, kind="deb")
        _download_binary(package, match[1], apt_options, download)
    (archive,) = download.glob("*.deb")
    _run(["dpkg-deb", "-x", archive.name, "tree"], download)
    (download / "tree").rename(tree)


def _download(package: str, apt_options: list[str], download: Path) -> None:
    """Fetch the newest version, or else an older one: a mirror may lack the newest files."""
    get = ["apt-get", *apt_options, "-qq", "source", "--download-only"]
    try:
        _run([*get, package], download)
    except SourceError as error:
        listed = _run(["apt-cache", *apt_options, "showsrc", package], download)
        versions = list(dict.fromkeys(re.findall(r"^Version: (\S+)", listed, re.MULTILINE)))
        for version in versions[: -OLDER - 2 : -1]:
            _empty(download)
            with contextlib.suppress(SourceError):  # the first error is raised if no version can be had
                _run([*get, f"{package}={version}"], download)
                return
        _empty(download)
        raise error


def _download_binary(package: str, version: str, apt_options: list[str], download: Path) -> None:
    """Fetch the package that was built from this source version, or rebuilt from it (+b1)."""
    listed = _run(["apt-cache", *apt_options, "show", package], download)
    versions = re.findall(rf"^Version: ({re.escape(version)}(?:\+b\d+)?)$", listed, re.MULTILINE)
    if not versions:
        raise SourceError(f"the package {package} has no version {version}")
    _run(["apt-get", *apt_options, "-qq", "download", f"{package}={versions[0]}"], download)


def _empty(directory: Path) -> None:
    for file in directory.iterdir():
        file.unlink()


def _private_apt(state: Path, suite: str = "", *, kind: str = "deb-src") -> list[str]:
    """Return the options that make apt use a private state, which is made if needed.

    `suite` takes the place of this machine's release; "" keeps the release. `kind` is the type of
    the packages in source lists: deb or deb-src.
    """
    sources = state / "sources.list.d"
    options = {
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": str(sources),
        "Dir::State": str(state / "state"),
        "Dir::Cache": str(state / "cache"),
        "APT::Sandbox::User": "root",  # if we are root, _apt could not write below a private home; else no effect
    }
    arguments = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    if not sources.is_dir():
        for directory in ("state/lists/partial", "cache/archives/partial", "new"):
            (state / directory).mkdir(parents=True, exist_ok=True)
        for name, text in _source_lists(kind):
            (state / "new" / name).write_text(other_suite(text, _codename(), suite) if suite else text)
        (state / "new").rename(sources)
    _run(["apt-get", *arguments, "-qq", "update"], state)
    return arguments


def _source_lists(kind: str) -> Iterator[tuple[str, str]]:
    codename = _codename()
    found = False
    lists = [APT / "sources.list", *sorted((APT / "sources.list.d").glob("*"))]
    for path in lists:
        text = path.read_text(errors="replace") if path.suffix in (".list", ".sources") and path.is_file() else ""
        turned = _deb822(text, codename, kind) if path.suffix == ".sources" else _one_line(text, codename, kind)
        if turned:
            found = True
            yield path.name, turned
    if not found:
        raise SourceError(f"/etc/apt names no Debian archive for {codename}, so sources cannot be fetched")


def _codename() -> str:
    match = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    if match is None:
        raise SourceError("/etc/os-release has no VERSION_CODENAME: is this Debian?")
    return match[1]


def _is_ours(suite: str, codename: str) -> bool:
    # Third parties give their suites other names, and seldom offer sources.
    return suite == codename or suite.startswith(f"{codename}-")


def _one_line(text: str, codename: str, kind: str) -> str:
    lines = re.findall(r"^\s*deb((?:\s+\[[^]]*\])?\s+)((?!cdrom:)\S+)\s+(\S+)\s+(.*)$", text, re.MULTILINE)
    return "".join(
        f"{kind}{options}{uri} {suite} {rest}\n" for options, uri, suite, rest in lines if _is_ours(suite, codename)
    )


def _deb822(text: str, codename: str, kind: str) -> str:
    stanzas = []
    for stanza in re.split(r"\n\s*\n", text):
        uncommented = "\n".join(line for line in stanza.splitlines() if not line.startswith("#"))
        suites = re.search(r"^Suites:(.*)$", uncommented, re.MULTILINE | re.IGNORECASE)
        disabled = re.search(r"^Enabled:\s*no", uncommented, re.MULTILINE | re.IGNORECASE)
        if suites and not disabled and all(_is_ours(suite, codename) for suite in suites[1].split()):
            stanzas.append(re.sub(r"(?mi)^Types:.*$", f"Types: {kind}", uncommented))
    return "\n\n".join(stanzas) + "\n" if stanzas else ""


def other_suite(text: str, codename: str, suite: str) -> str:
    """Return a source list with `suite` in place of the release `codename`.

    Entries for the release's updates are left out, because another suite may have none.
    """
    if "Suites:" not in text:
        lines = [line.split(" ") for line in text.splitlines()]
        kept = [[suite if word == codename else word for word in words] for words in lines if codename in words]
        return "".join(" ".join(words) + "\n" for words in kept)
    pattern = re.compile(rf"^(Suites:)(?=.*\s{codename}(?:\s|$)).*$", re.MULTILINE)
    stanzas = [pattern.sub(rf"\1 {suite}", stanza) for stanza in text.split("\n\n") if pattern.search(stanza)]
    return "\n\n".join(stanzas) + "\n"


def _run(command: list[str], directory: Path) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise SourceError(f"{command[0]} {command[-1]} failed: {last}")
    return done.stdout


if __name__ == "__main__":
    try:
        print(fetch_source(sys.argv[1], Path(sys.argv[2])))
    except SourceError as error:
        sys.exit(f"sources: {error}")
