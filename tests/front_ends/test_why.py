"""`termite-ctl why` names the plugin, the rule and the place of a command of each build tool."""

import pytest

from tests.e2e.cluster import Tree

NONE = "none: rules are matched with the command as you gave it"
REMOTE = "none matches, so it runs remotely"
CASES = {
    "make": (("termite", "--preload=make", "--", "/bin/sh", "-c", "gcc \\\n -c x.c"), "make", "remote", REMOTE),
    "make below": (("make", "-C", "sub"), NONE, "local", "COMMAND((?:g|b|p|re)?make("),
    "termite-make below": (("cd x; termite-make",), NONE, "local", "(built-in default, recurse"),
    "ninja": (("termite", "--preload=ninja", "--", "/bin/sh", "-c", "gcc -c x.c"), NONE, "remote", REMOTE),
    "ninja below": (("ninja", "-C", "sub"), NONE, "local", "COMMAND(ninja(?:-build)?|samu)  (ninja plugin, recurse"),
    "a launcher by hand": (("termite", "gcc", "-c", "x.c"), NONE, "remote", REMOTE),
    "cmake": (("cd b && /x/termite --cmake=link --target=t -- cc x.o",), "cmake", "remote", REMOTE),
    "cmake configures": (
        ("/usr/bin/cmake", "-S.", "-Bb"),
        NONE,
        "local",
        "COMMAND(cmake3?)\\s++(?!-E\\s)  (cmake plugin)",
    ),
    "cargo": (("termite", "/x/rustc", "--crate-name", "x"), "cargo", "remote", REMOTE),
    "cargo asks": (("/x/rustc", "-vV"), "cargo", "local", "^rustc (?:-vV|- )  (cargo plugin, skip_refresh)"),
    "go": (("termite", "/x/pkg/tool/linux_amd64/compile", "-o", "x"), "go", "remote", REMOTE),
    "go asks": (("/x/pkg/tool/linux_amd64/compile", "-V=full"), "go", "local", "(go plugin, skip_refresh)"),
    "meson": (("/x/meson", "--internal", "exe", "--capture", "x", "--", "gen"), NONE, "remote", REMOTE),
    "meson sets up": (("/x/meson", "--internal", "regenerate", "."), NONE, "local", "(meson plugin)"),
}


@pytest.mark.parametrize(("words", "plugin", "place", "rule"), CASES.values(), ids=CASES)
def test_it_names_plugin_place_and_rule(tree: Tree, words: tuple[str, ...], plugin: str, place: str, rule: str) -> None:
    done = tree.ctl("why", *words)
    said = dict(line.split(maxsplit=1) for line in done.stdout.decode().splitlines())
    assert (done.code, said["plugin"], said["place"]) == (0, plugin, place), done
    assert rule in said["rule"], said
    assert "termite " not in said["command"], "the launcher is left out"
