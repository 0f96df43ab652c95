"""Tests of the built-in plugins, and of plugins that fail."""

import dataclasses
import functools
import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from termite import Command, How, Invocation, hookimpl
from termite.engine.decide import hookspecs
from termite.engine.decide.loaded_plugins import HOOKS, Plugins
from termite.engine.decide.logic.rules import RuleBook, first_match
from tests.unit.tables import each_row

NAMES = ("make", "ninja", "cmake", "cargo", "go", "meson", "caches", "known", "runners", "machine")
BUILT_IN = tuple(f"termite.plugins.{name}" for name in NAMES)
REMOTE, LOCAL, RECURSE = (False, False), (True, False), (True, True)


@functools.cache
def built_in() -> Plugins:
    """Return the built-in plugins, loaded once for all tests."""
    return Plugins(BUILT_IN)


def invocation(*argv: str, tool: str = "") -> Invocation:
    return Invocation(argv, argv[0], True, "/", {}, How.PRELOAD if tool else How.DIRECT, tool)


DECISIONS = [
    ("make", RECURSE),
    ("make -C sub all", RECURSE),
    ("/usr/bin/make all", RECURSE),
    ("cd x && make", RECURSE),
    ("cd x;gmake", RECURSE),
    ("for d in a b; do (cd $d && make all); done", RECURSE),
    ("for d in a; do make -C $d || exit 1; done", RECURSE),
    ("A=1 B=2 make", RECURSE),
    ("env A=b make-4.3 x", RECURSE),
    ("if test -d x; then make; fi", RECURSE),
    ("set -e\nmake", RECURSE),
    ("${HOME}/bin/make", RECURSE),
    ("gcc -o make x.o", REMOTE),
    ("echo make", REMOTE),
    ("cp makefile make", REMOTE),
    ("automake --add-missing", LOCAL),
    ("cd . && autoheader", LOCAL),
    ("cd . && /bin/bash '/x/build-aux/missing' aclocal-1.16 -I m4", LOCAL),
    ('CDPATH=: && cd . && /bin/bash "/x y/missing" autoconf', LOCAL),
    ("/bin/bash /x/missing makeinfo --force", REMOTE),
    ("cp missing autoconf", REMOTE),
    ("/bin/bash ./config.status config.h", REMOTE),
    ("./make.sh", REMOTE),
    ("make/it", REMOTE),
    ("ninja -C out", RECURSE),
    ("cd x && samu", RECURSE),
    ("cat build.ninja", REMOTE),
    ("cmake -S . -B build", LOCAL),
    ("cmake -P cmake_install.cmake", LOCAL),
    ("cmake --build .", RECURSE),
    ("cd /b && /usr/bin/cmake -E cmake_link_script CMakeFiles/x.dir/link.txt --verbose=1", REMOTE),
    ("/usr/bin/cmake -E cmake_echo_color --switch= --progress-num=1", LOCAL),
    ("/usr/bin/cmake -E cmake_progress_start /b/CMakeFiles 0", LOCAL),
    ("cmake -E env A=b python3 gen.py", REMOTE),
    ("gcc -c cmake.c", REMOTE),
    ("sudo make install", LOCAL),
    ("cd x && /usr/bin/sudo -n true", LOCAL),
    ("su nobody -c id", LOCAL),
    ("mkdir m && mount -t tmpfs t m; umount m", LOCAL),
    ("A=1 chroot root sh", LOCAL),
    ("gcc -c su.c -o su && cp su sudo mount", REMOTE),
    ("sum a; mountpoints .", REMOTE),
    ("mountpoint -q . && pkill -f server", LOCAL),
    ("gcc -c findmnt.c -o lsof", REMOTE),
    ("ulimit -a; umask", LOCAL),
    ("ulimit -S -u", LOCAL),
    ("ulimit -Hn && ulimit -i", LOCAL),
    ("ulimit -n 4096; ulimit -Hs; ulimit -s unlimited; ulimit -c unlimited; ulimit -Sv", REMOTE),
    ("python3 -c 'import resource as r; print(r.getrlimit(r.RLIMIT_NPROC))'", LOCAL),
    ("python3 -c 'import resource as r; print(r.getrlimit(r.RLIMIT_NOFILE))'", REMOTE),
    ("cat /proc/self/limits", LOCAL),
    ("cat /proc/$$/cgroup >c", LOCAL),
    ("grep -c . /proc/mounts", LOCAL),
    ("nproc; cat /proc/sys/kernel/pid_max", LOCAL),
    ("grep -E 'SigIgn|NoNewPriv|Seccomp:' /proc/self/status", LOCAL),
    ("head -40 /proc/self/status", LOCAL),
    ("grep SigIgn /proc/self/status; cat /proc/uptime; readlink /proc/self/exe", REMOTE),
    ("gcc -c Seccomp.c CapEff.c", REMOTE),
    ("cd x; ls /dev", LOCAL),
    ("ls -l '/dev/'", LOCAL),
    ("ls /dev/shm; ls -l x >/dev/null; bwrap --dev /dev ls", REMOTE),
    ("docker build -t x .", LOCAL),
    ("cat docker; cp podman x", REMOTE),
    ("groups", LOCAL),
    ("echo $(id -Gn)", LOCAL),
    ("id | grep x", LOCAL),
    ("id -u; id -un; echo id -G groups", REMOTE),
    *(
        (text, LOCAL)
        for text in ("id", "/usr/bin/id", "id && x", "id\nx", "id|grep x", "id > groups.txt", "id<x", "'id'")
    ),
    *((text, LOCAL) for text in ("su", "su;x", "su\t-", "du\t-x .", "sudo>log", "'/a b/id' -G")),
    ("void -x; suid; gcc -c id.c -o du; identify a -G", REMOTE),
    *((f"{name} -x a", LOCAL) for name in ["setfacl", "getfacl", "chacl", "setfattr", "getfattr", "chattr", "lsattr"]),
    ("mkdir d && setfacl -b d", LOCAL),
    ("gcc -c getfacl.c -o lsattr.o; cp chattr x", REMOTE),
    ("du -x", LOCAL),
    ("cd x; du -sxh .", LOCAL),
    ("du -s --one-file-system . | sort", LOCAL),
    ("du -s . -x", LOCAL),
    ("du -s .; gcc -x c a", REMOTE),
    ("du -sk ./du -s a-x", REMOTE),
    ("cd /b && /usr/bin/ctest --force-new-ctest-process", LOCAL),
    ("/usr/bin/meson --internal regenerate /src .", LOCAL),
    ("/x/python3 /x/bin/meson --internal regenerate /src .", LOCAL),
    ("/usr/bin/meson --internal exe --capture out -- gen.py", REMOTE),
    ("/x/python3 /x/bin/meson --internal symbolextractor /b libx.so", REMOTE),
    ("meson install --no-rebuild", LOCAL),
    ("/usr/bin/meson compile -C out", RECURSE),
    ("gcc meson.c", REMOTE),
    ("python3 meson.build.py", REMOTE),
    ("cc /b/meson-private/tmpx/testfile.c -o /b/meson-private/tmpx/output.exe", LOCAL),
    ("rustc -vV", LOCAL),
    ("rustc - --crate-name ___ --print=file-names", LOCAL),
    ("rustc --crate-name x --edition=2021 src/lib.rs", REMOTE),
    ("go tool compile -V=full", LOCAL),
    ("go tool compile -o x.a -p x x.go", REMOTE),
]


@each_row(("text", "expected"), DECISIONS)
def test_what_steers_a_build_is_local_and_what_builds_is_remote(text: str, expected: tuple[bool, bool]) -> None:
    verdict = RuleBook(built_in().rules()).decide(text)
    assert (verdict.local, bool(verdict.rule and verdict.rule.recurse)) == expected


@each_row("text", [text for text, _ in DECISIONS])
def test_the_words_of_a_rule_only_save_a_search(text: str) -> None:
    rules = built_in().rules()
    assert any(rule.words for rule in rules)
    assert (
        first_match(text, rules).local
        == first_match(text, [dataclasses.replace(rule, words=()) for rule in rules]).local
    )


def test_rules_of_a_recipe_see_it_without_the_line_breaks_that_make_leaves_in_it() -> None:
    plugins = built_in()
    argv = ("/bin/sh", "-c", "cd x && \\\n  make a\\\\\nb")
    assert plugins.parse(invocation(*argv, tool="make")).text == "cd x &&   make a\\\\\nb"
    assert plugins.parse(invocation(*argv, tool="make")).argv == argv
    assert plugins.parse(invocation(*argv)).text == argv[2]


def test_rules_of_a_make_with_make_shell_see_no_exec_that_make_has_added() -> None:
    argv = ("/bin/sh", "-c", "exec gcc -c \\\nx.c")
    called = Invocation(argv, argv[0], True, "/", {}, How.SHELL, "")
    command = built_in().parse(called)
    assert (command.text, command.argv) == ("gcc -c x.c", argv)
    assert built_in().parse(invocation(*argv)).text == argv[2]


def test_each_tool_is_started_under_its_own_name_with_the_preload_library() -> None:
    command = built_in().build("make", ["-j2"], "/x", {"A": "1"}, {"LD_PRELOAD": "lib"})
    assert command is not None
    assert (command.argv, command.env["LD_PRELOAD"], command.env["A"]) == (("make", "-j2"), "lib", "1")
    assert built_in().build("waf", [], "/x", {}, {}) is None


def test_a_plugin_that_breaks_is_named_once_and_the_others_live(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = ModuleType("broken_plugin")

    def termite_parse(invocation: Invocation) -> Command | None:
        raise ZeroDivisionError

    broken.termite_parse = hookimpl(termite_parse)  # type: ignore[attr-defined]  # made by hand
    monkeypatch.setitem(sys.modules, "broken_plugin", broken)
    plugins = Plugins(("broken_plugin", "no.such.module", *BUILT_IN))
    for _ in range(2):
        assert plugins.parse(invocation("gcc", "-c")).text == "gcc -c"
    assert set(plugins.broken) == {"broken_plugin", "module"}
    assert len(caplog.records) == 2
    assert plugins.rules()


@pytest.mark.logs("plugin-failed")
def test_a_plugin_with_a_hook_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = ModuleType("wrong_plugin")
    wrong.termite_parse = hookimpl(lambda nothing_like_this: None)  # type: ignore[attr-defined]  # made by hand
    monkeypatch.setitem(sys.modules, "wrong_plugin", wrong)
    plugins = Plugins(("wrong_plugin", *BUILT_IN))
    assert "wrong_plugin" in plugins.broken
    assert plugins.parse(invocation("gcc")).text == "gcc"


@each_row(
    ("argv", "notes", "plugin", "text"),
    [
        (("cc", "-c", "x.c"), {"cmake": "compile"}, "cmake", "cc -c x.c"),
        (
            ("sh", "-c", "cd /b && /x/termite --cmake=custom --output=a -- gen a && :"),
            {},
            "cmake",
            "cd /b && gen a && :",
        ),
        (
            ("sh", "-c", '"/x y/termite" --cmake=compile --target=t --object="a b.o" -- cc -c "a b.c"'),
            {},
            "cmake",
            'cc -c "a b.c"',
        ),
        (("/home/u/.cargo/bin/rustc", "--crate-name", "x"), {}, "cargo", "rustc --crate-name x"),
        (("/usr/lib/go/pkg/tool/linux_amd64/link", "-o", "x"), {}, "go", "go tool link -o x"),
        (("gcc", "-c", "x.c"), {}, "", "gcc -c x.c"),
    ],
)
def test_a_plugin_reads_what_carries_its_mark(
    argv: tuple[str, ...], notes: dict[str, str], plugin: str, text: str
) -> None:
    asked = Invocation(argv, argv[0], True, "/", {}, How.DIRECT, "", notes)
    name, command = built_in().parse_with_plugin(asked)
    assert (name, command.text, command.argv) == (plugin, text, argv)


def test_toolchains_in_a_home_are_exported_but_not_what_lies_beside_them() -> None:
    paths = built_in().exports({"HOME": "/h", "GOCACHE": "off"})
    assert {"/h/.cargo/registry/src", "/h/.rustup/toolchains", "/h/go/pkg/mod"} <= set(paths)
    assert not {"/h", "/h/.cargo", "/h/.rustup", "off"} & set(paths)
    assert "/c/bin" in built_in().exports({"CARGO_HOME": "/c"})


def test_each_hook_has_a_built_in_user() -> None:
    modules = [importlib.import_module(name) for name in BUILT_IN]
    specified = {name for name in vars(hookspecs) if name.startswith("termite_")}
    assert specified == set(HOOKS)
    for hook in HOOKS:
        assert any(hasattr(module, hook) for module in modules), hook


def test_each_tool_is_started_its_own_way() -> None:
    preload = {"LD_PRELOAD": "lib", "TERMITE_LAUNCHER": "/x/termite"}

    def added(tool: str, **env: str) -> dict[str, str]:
        command = built_in().build(tool, ["build"], "/w", env, preload)
        assert command is not None
        assert command.argv == (tool, "build")
        return {name: text for name, text in command.env.items() if env.get(name) != text}

    assert added("cargo") == {"RUSTC_WRAPPER": "/x/termite"}
    assert added("cargo", RUSTC_WRAPPER="sccache") == {}
    assert added("go", GOFLAGS="-v") == {"GOFLAGS": "-v -toolexec=/x/termite", "GOTMPDIR": "/w"}
    assert added("meson") == added("cmake") == preload


def test_the_worked_example_of_the_manual_is_the_cargo_plugin() -> None:
    top = Path(__file__).parents[3]
    plugin = (top / "termite" / "plugins" / "cargo.py").read_text()
    assert f"```python\n{plugin}```" in (top / "docs" / "use" / "front-ends.md").read_text()


@each_row(
    ("env", "exported"),
    [
        ({}, []),
        ({"PATH": "/usr/bin"}, []),
        ({"PATH": "/h/.nvm/versions/node/v1/bin:/usr/bin"}, ["alias", "nvm-exec", "nvm.sh", "versions"]),
        ({"PATH": "/x/bin:/h/.opam/default/bin"}, ["default", "opam-init"]),
        ({"PATH": "/h/.opamx/default/bin"}, []),
        ({"PATH": "/n/versions/bin", "NVM_DIR": "/n/"}, ["alias", "nvm-exec", "nvm.sh", "versions"]),
        ({"PATH": "relative/bin", "NVM_DIR": "relative"}, []),
        ({"PATH": "/g/.ghcup/bin", "GHCUP_INSTALL_BASE_PREFIX": "/g"}, ["bin", "ghc", "hls"]),
    ],
)
def test_a_managers_tools_are_exported_if_it_is_in_path(env: dict[str, str], exported: list[str]) -> None:
    paths = Plugins(("termite.plugins.tool_managers",)).exports({"HOME": "/h", **env})
    assert sorted(path.rpartition("/")[2] for path in paths) == exported
    assert all(path.count("/") > 1 for path in paths), "never the top itself"


def test_gos_temporary_directory_has_the_other_name_of_the_tree() -> None:
    command = built_in().build("go", ["build"], "/tree", {}, {"TERMITE_LAUNCHER": "/l"}, "/alias")
    assert command is not None
    assert command.env["GOTMPDIR"] == "/alias"
    command = built_in().build("go", ["build"], "/tree", {"GOTMPDIR": "/mine"}, {"TERMITE_LAUNCHER": "/l"})
    assert command is not None
    assert command.env["GOTMPDIR"] == "/mine"
