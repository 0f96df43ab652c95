"""Mutate the tree of a package as developers do between two builds, and as nobody does.

Every mutation returns a few words that say what it did. Files keep their owner, because the caller
gives the whole tree to its user afterwards.
"""

import os
import random
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

SOURCES = (".c", ".h", ".inc", ".S")
# What they decide is how the project is configured, which takes longer than to build it.
NOT_TOUCHED = re.compile(
    r"configure.*|[Mm]akefile.*|.*\.(?:am|ac|in|m4|cmake|mk|ninja|pc)|CMake.*|config\.status|config\.h|stamp-h\d*|\.ninja.*|libtool"
)
INCLUDED = re.compile(r'^[ \t]*#[ \t]*include[ \t]*["<]([^">]+)[">]', re.MULTILINE)
OLD_S = 1_500_000_000


class Mutator:
    """The mutations of one tree, chosen by `rng`."""

    def __init__(self, top: Path, rng: random.Random) -> None:
        self._top, self._rng = top, rng
        self._files = sorted(self._walk())
        self._sources = [path for path in self._files if path.suffix in SOURCES]
        self._others = [path for path in self._files if path.suffix not in SOURCES]

    def mutate(self) -> str:
        """Mutate one thing, and return what was done, or "" if there is nothing to do it to."""
        try:
            return self._rng.choice(MUTATIONS)(self)
        except IndexError:  # no such file is left
            return ""
        except (OSError, UnicodeDecodeError) as error:  # such as a name that another mutation has taken
            return f"nothing: {error}"

    def _walk(self) -> Iterator[Path]:
        for directory, directories, names in os.walk(self._top):
            directories[:] = [name for name in directories if name != "CMakeFiles" or ".dir" in directory]
            yield from (Path(directory, name) for name in names if not NOT_TOUCHED.fullmatch(name))

    def _pick(self) -> Path:
        """Return a file: mostly a source, otherwise an output or a document."""
        is_source = self._rng.random() < 0.75
        return self._rng.choice((self._sources if is_source else self._others) or self._files)

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._top))

    def _directory(self) -> Path:
        return self._rng.choice(sorted({path.parent for path in self._files}))

    # -- contents ------------------------------------------------------------------------------------------------------

    def edit(self) -> str:
        path = self._rng.choice(self._sources)
        text = self._rng.choice(
            (f"\n#define PROOF{self._rng.randrange(4)} 1\n", "\n", f"\nextern int proof{self._rng.randrange(4)};\n")
        )
        with path.open("a") as file:
            file.write(text)
        return f"edit {self._name(path)}"

    def define(self) -> str:
        """Add a variable, which shows in the object."""
        path = self._rng.choice([path for path in self._sources if path.suffix == ".c"])
        name = re.sub(r"\W", "_", path.stem)
        with path.open("a") as file:
            file.write(f"\nint proof_{name}_{self._rng.randrange(3)} = {self._rng.randrange(3)};\n")
        return f"define {self._name(path)}"

    def edit_and_keep_time(self) -> str:
        """Change one letter of a comment or a text, so that size and time stay."""
        path = self._rng.choice(self._sources)
        content, found = path.read_bytes(), path.lstat()
        places = [at.start() for at in re.finditer(rb"[a-y](?=[^\n]*\*/)", content)]
        if not places:
            return ""
        at = self._rng.choice(places)
        path.write_bytes(content[:at] + bytes([content[at] + 1]) + content[at + 1 :])
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
        return f"edit {self._name(path)} and keep its time"

    def spoil(self) -> str:
        """Append to any file, an output among them."""
        path = self._pick()
        with path.open("ab") as file:
            file.write(b"\n")
        return f"append to {self._name(path)}"

    def empty(self) -> str:
        path = self._rng.choice(self._others)
        path.write_bytes(b"")
        return f"empty {self._name(path)}"

    def same_bytes(self) -> str:
        path = self._pick()
        content, mode = path.read_bytes(), path.stat().st_mode
        path.unlink()
        path.write_bytes(content)
        path.chmod(stat.S_IMODE(mode))
        return f"write {self._name(path)} again"

    # -- names ---------------------------------------------------------------------------------------------------------

    def shadow(self) -> str:
        """Put a header with another content, or its own one, where a compiler may find it first."""
        source = self._rng.choice(self._sources)
        names = INCLUDED.findall(source.read_text(errors="replace"))
        if not names:
            return ""
        name = self._rng.choice(names)
        place = self._rng.choice((source.parent, self._directory(), self._top)) / name
        if place.exists():
            return ""
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"#include_next <{name}>\n#define PROOF_SHADOW{self._rng.randrange(3)} 1\n")
        return f"shadow {name} by {self._name(place)}"

    def delete(self) -> str:
        path = self._pick()
        path.unlink()
        return f"delete {self._name(path)}"

    def rename(self) -> str:
        path = self._pick()
        new = path.with_name(self._rng.choice((f"x{path.name}", f"{path.stem}2{path.suffix}")))
        path.rename(new)
        return f"rename {self._name(path)} to {new.name}"

    def swap(self) -> str:
        one, other = self._pick(), self._pick()
        spare = one.with_name(f"{one.name}.spare")
        one.rename(spare)
        other.rename(one)
        spare.rename(other)
        return f"swap {self._name(one)} and {self._name(other)}"

    def new_file(self) -> str:
        path = self._directory() / f"new{self._rng.randrange(3)}{self._rng.choice((*SOURCES, '.o', ''))}"
        path.write_text("")
        return f"new {self._name(path)}"

    def new_directory(self) -> str:
        path = self._directory() / self._rng.choice(("include", "inc", "sys", "lib", "bits"))
        path.mkdir()
        return f"mkdir {self._name(path)}"

    # -- kinds ---------------------------------------------------------------------------------------------------------

    def link_instead(self) -> str:
        """Put a symlink in the place of a file, which gets another name."""
        path = self._pick()
        new = path.with_name(f"{path.name}.real")
        path.rename(new)
        path.symlink_to(new.name)
        return f"symlink {self._name(path)} to {new.name}"

    def copy_instead(self) -> str:
        """Put a copy in the place of a symlink, or make the link point to another file."""
        links = [path for path in self._files if path.is_symlink()]
        if not links:
            return ""
        path, target = self._rng.choice(links), self._rng.choice(self._files)
        content = path.read_bytes()
        path.unlink()
        if self._rng.random() < 0.5:
            path.write_bytes(content)
            return f"a copy instead of the symlink {self._name(path)}"
        path.symlink_to(os.path.relpath(target, path.parent))
        return f"symlink {self._name(path)} to {self._name(target)}"

    def linked_directory(self) -> str:
        path = self._directory()
        if path == self._top or path.is_symlink():
            return ""
        new = path.with_name(f"{path.name}.real")
        path.rename(new)
        path.symlink_to(new.name)
        return f"symlink {self._name(path)}/ to {new.name}"

    def hard_link(self) -> str:
        path = self._pick()
        new = path.with_name(f"{path.name}.linked")
        os.link(path, new)
        return f"link {self._name(path)} to {new.name}"

    def directory_instead(self) -> str:
        path = self._rng.choice(self._others)
        path.unlink()
        path.mkdir()
        return f"a directory instead of {self._name(path)}"

    # -- modes and times -----------------------------------------------------------------------------------------------

    def chmod(self) -> str:
        path, mode = self._pick(), self._rng.choice((0o444, 0o600, 0o644, 0o755, 0o000))
        if path.is_symlink():
            return ""
        path.chmod(mode)
        return f"chmod {mode:o} {self._name(path)}"

    def chmod_directory(self) -> str:
        path, mode = self._directory(), self._rng.choice((0o700, 0o755, 0o775))
        path.chmod(mode)
        return f"chmod {mode:o} {self._name(path)}/"

    def touch(self) -> str:
        path = self._pick()
        os.utime(path, follow_symlinks=False)
        return f"touch {self._name(path)}"

    def make_old(self) -> str:
        path = self._pick()
        os.utime(path, (OLD_S, OLD_S + self._rng.randrange(1000)), follow_symlinks=False)
        return f"touch -d @{OLD_S} {self._name(path)}"


# Often used ones are named twice.
MUTATIONS: tuple[Callable[[Mutator], str], ...] = (
    *(Mutator.edit, Mutator.define, Mutator.edit_and_keep_time, Mutator.shadow, Mutator.delete, Mutator.touch) * 2,
    *(Mutator.spoil, Mutator.empty, Mutator.same_bytes, Mutator.rename, Mutator.swap, Mutator.new_file),
    *(Mutator.new_directory, Mutator.link_instead, Mutator.copy_instead, Mutator.linked_directory),
    *(Mutator.hard_link, Mutator.directory_instead, Mutator.chmod, Mutator.chmod_directory, Mutator.make_old),
)

ENVIRONMENTS: tuple[dict[str, str], ...] = (
    {"LC_ALL": "C"},
    {"SOURCE_DATE_EPOCH": "1600000000"},
    {"CPATH": "inc:include"},
    {"C_INCLUDE_PATH": "/usr/include/linux"},
    {"TMPDIR": "/var/tmp"},
    {"GCC_EXEC_PREFIX": ""},
    {"PROOF": "1"},
    {"PROOF": "2"},
    {"PATH": "/usr/bin:/bin"},
)
UMASKS = (0o022, 0o022, 0o022, 0o077, 0o002)
