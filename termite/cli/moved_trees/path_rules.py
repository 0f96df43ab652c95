"""Decide at which paths a tree may be built."""

import os
from collections.abc import Iterable
from pathlib import Path

from termite.engine.errors import UserError

# Their contents belong to the kernel, or change while a build runs.
_KERNELS = (Path("/proc"), Path("/sys"), Path("/dev"))
_HINT = "choose a path such as /build/project, which need not exist"


def parse_path(text: str) -> Path:
    """Return a build path. Raise UserError if the text is none: it must be whole and plain."""
    if not text.startswith("/"):
        raise UserError(f"--at wants an absolute path, not {text}", hint=_HINT)
    if "\n" in text or "\0" in text or ":" in text:
        raise UserError("--at wants a path without line ends and colons", hint=_HINT)
    plain = os.path.normpath(text).replace("//", "/", 1)
    if ".." in Path(text).parts:
        raise UserError(f"--at wants a path without ..: {text}", hint=f"did you mean {plain}?")
    if plain == "/":
        raise UserError("--at cannot be the root directory", hint=_HINT)
    return Path(plain)


def check_path(path: Path, own: Path, needed: Iterable[tuple[str, Path]]) -> None:
    """Raise UserError if the tree with the path `own` cannot be built at `path`.

    `needed` are places that a build must see, each with the words that name it. They must stand
    neither at `path` or below it, nor in the tree: the build sees no tree at its own path.
    """
    if path == own:
        return
    if path.is_relative_to(own) or own.is_relative_to(path):
        raise UserError(f"{own} cannot be built at {path}: one of them is in the other", hint=_HINT)
    if any(path.is_relative_to(place) for place in _KERNELS):
        raise UserError(f"no tree can be built at {path}: that place belongs to the kernel", hint=_HINT)
    for words, place in needed:
        if place.is_relative_to(path):
            raise UserError(f"no tree can be built at {path}: it would cover {words} ({place})", hint=_HINT)
        if place.is_relative_to(own):
            raise UserError(
                f"{own} cannot be built at another path: {words} ({place}) is in it",
                hint="the build does not see the tree at its own path; keep the two apart",
            )
