"""Builds of large makefiles: a representative part of Emacs, or all of it, and a small Linux."""

import dataclasses
from pathlib import Path

from bench.builds import EXAMPLES, Ground, prepare, warm_ground
from bench.figures import Figure, Target, Targets
from bench.rounds import Settings
from projects import run

EMACS_TARGETS = Targets(wall=Target(1.12))
LINUX_TARGETS = Targets(wall=Target(1.10))
EMACS_PLACE = "emacs-built"
# They stand for all commands of a whole build: small C files, large ones, byte compilations.
EMACS_OBJECTS = (
    "alloc buffer bytecode callproc charset coding data editfns eval fns keyboard keymap lread print process"
)
EMACS_LISP = ("calendar", "mail")  # directories: about 80 files, none of which is in the dump
QUICK_LINUX = "make -j{jobs} kernel/sched/"


def emacs(settings: Settings) -> list[Figure]:
    """Measure warm builds of Emacs against plain make: a part of it, or all with `whole_emacs`.

    The part is built again and again in a tree that was built completely before, because the byte
    compilations need an Emacs.
    """
    if settings.whole_emacs:
        ground = prepare(settings, EXAMPLES / "emacs" / "example.toml")
        return warm_ground(settings, "emacs", ground, EMACS_TARGETS)
    ground = prepare(settings, EXAMPLES / "emacs" / "example.toml", EMACS_PLACE, _build_all_and_remove_a_part)
    project = dataclasses.replace(ground.project, build=_lines_of_part(ground.place.saved, settings.quick))
    ground = dataclasses.replace(ground, project=project)
    return warm_ground(settings, "emacs, a part", ground, EMACS_TARGETS)


def linux(settings: Settings) -> list[Figure]:
    """Measure warm builds of Linux tinyconfig against plain make."""
    ground = prepare(settings, EXAMPLES / "linux" / "example.toml")
    if settings.quick:
        ground = dataclasses.replace(ground, project=dataclasses.replace(ground.project, build=(QUICK_LINUX,)))
    return warm_ground(settings, "linux tinyconfig", ground, LINUX_TARGETS)


def _build_all_and_remove_a_part(ground: Ground) -> None:
    settings, tree = ground.settings, ground.place.tree
    settings.say("building all of Emacs plainly, once")
    for line in ground.project.lines(settings.jobs):
        run(line.split(), ground.project, ground.place, "whole")
    removed = [*(tree / "lib").glob("*.[oa]"), *(tree / "src" / name for name in _objects())]
    removed += [compiled for directory in EMACS_LISP for compiled in (tree / "lisp" / directory).glob("*.elc")]
    for path in removed:
        path.unlink()
    settings.say(f"{len(removed)} outputs are built again in each round")


def _lines_of_part(tree: Path, quick: bool) -> tuple[str, ...]:
    compiled = [
        str(source.relative_to(tree / "lisp").with_suffix(".elc"))
        for directory in EMACS_LISP
        for source in sorted((tree / "lisp" / directory).glob("*.el"))
        if b"no-byte-compile: t" not in source.read_bytes()
    ]
    return (
        "make -j{jobs} -C lib",
        f"make -j{{jobs}} -C src {' '.join(_objects())}",
        f"make -j{{jobs}} -C lisp {' '.join(compiled[:10] if quick else compiled)}",
    )


def _objects() -> list[str]:
    return [f"{name}.o" for name in EMACS_OBJECTS.split()]
