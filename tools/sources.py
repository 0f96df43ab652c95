"""Fetches and unpacks packages of Debian, sources mostly, without touching the machine's own apt configuration.

A private apt state is made in a directory of ours from the machine's own sources, turned from `deb` to `deb-src`: the
same mirror, proxy and keyring as the system uses, and no root needed. Nothing is installed.
"""

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

APT = Path("/etc/apt")
OLDER = 6  # versions that are tried where the newest one cannot be had


class SourceError(Exception):
    """A source package cannot be had; the text is one line for a person."""


def fetch_source(package: str, directory: Path, *, patched: bool = True, otherwise: str = "") -> Path:
    """Return the pristine source tree of `package` in `directory`, fetched once and kept for the next calls.

    Copy it before building. `patched=False` leaves Debian's patches out: the project as its authors released it.
    `otherwise` is the suite to take it from where no version of this machine's own can be had.
    """
    name = package if patched else f"{package}-unpatched"
    tree = directory / name
    if tree.is_dir():
        return tree
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
    # apt has verified the files against the signed index; dpkg-source would ask for the maintainers' keyring besides.
    unpack = ["dpkg-source", "--no-check", *([] if patched else ["--skip-patches"]), "-x", description.name, "tree"]
    _run(unpack, download)
    (download / "tree").rename(tree)
    return tree


def fetch_binary(package: str, directory: Path, source: str, *, otherwise: str = "") -> Path:
    """Return the files of the binary package `package`, made from the version of `source` that `fetch_source` got."""
    name = f"{package}-files"
    tree = directory / name
    if tree.is_dir():
        return tree
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
    return tree


def _download(package: str, apt_options: list[str], download: Path) -> None:
    """The newest version, or else an older one: a mirror's index may name files that it does not have yet."""
    get = ["apt-get", *apt_options, "-qq", "source", "--download-only"]
    try:
        _run([*get, package], download)
    except SourceError as error:
        listed = _run(["apt-cache", *apt_options, "showsrc", package], download)
        versions = list(dict.fromkeys(re.findall(r"^Version: (\S+)", listed, re.MULTILINE)))
        for version in versions[: -OLDER - 2 : -1]:
            _empty(download)
            with contextlib.suppress(SourceError):
                _run([*get, f"{package}={version}"], download)
                return
        _empty(download)
        raise error


def _download_binary(package: str, version: str, apt_options: list[str], download: Path) -> None:
    """Of this version of its source, or as that was built once more (+b1)."""
    listed = _run(["apt-cache", *apt_options, "show", package], download)
    versions = re.findall(rf"^Version: ({re.escape(version)}(?:\+b\d+)?)$", listed, re.MULTILINE)
    if not versions:
        raise SourceError(f"there is no {package} of version {version}")
    _run(["apt-get", *apt_options, "-qq", "download", f"{package}={versions[0]}"], download)


def _empty(directory: Path) -> None:
    for file in directory.iterdir():
        file.unlink()


def _private_apt(state: Path, suite: str = "", *, kind: str = "deb-src") -> list[str]:
    """Options for apt; `suite` in place of this machine's release, for packages of this `kind`."""
    sources = state / "sources.list.d"
    options = {
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": str(sources),
        "Dir::State": str(state / "state"),
        "Dir::Cache": str(state / "cache"),
        "APT::Sandbox::User": "root",  # as root: _apt could not write below a private home; otherwise without effect
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
        raise SourceError(f"/etc/apt names no Debian archive for {codename}: sources cannot be fetched")


def _codename() -> str:
    match = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    if match is None:
        raise SourceError("/etc/os-release has no VERSION_CODENAME: is this Debian?")
    return match[1]


def _is_ours(suite: str, codename: str) -> bool:
    """Third parties name their suites otherwise, and seldom offer sources."""
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
    """A list of sources, with `suite` in place of the release itself; its updates, which others have not, left out."""
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
