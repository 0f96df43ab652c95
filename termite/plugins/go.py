"""The go plugin: compiler, assembler and linker run remotely, because the launcher starts them.

The flag -toolexec makes go do so. The questions that go asks its tools about themselves are
answered locally. go runs tests, and the C compilers of cgo, without the launcher. Its build cache
has the same keys with and without -toolexec, so builds with and without termite share it.
"""

import re
from collections.abc import Mapping, Sequence

from termite import Command, Invocation, Rule, hookimpl, plain_command

_SOURCE = "go plugin"
_TOOL = re.compile(r"/pkg/tool/\w+/(\w+)$")


@hookimpl
def termite_build(
    tool: str, args: Sequence[str], cwd: str, env: Mapping[str, str], preload: Mapping[str, str], other_cwd: str
) -> Command | None:
    """Add -toolexec, and a temporary directory in the tree, so that its files come back.

    The directory has a name that does not begin with the path of the module. With -trimpath, go
    first removes that path from what the compiler records, and then its temporary directory.
    """
    if tool != "go":
        return None
    flags = f"{env.get('GOFLAGS', '')} -toolexec={preload['TERMITE_LAUNCHER']}".strip()
    added = {"GOFLAGS": flags, "GOTMPDIR": env.get("GOTMPDIR") or other_cwd}
    return Command((tool, *args), tool, True, cwd, {**env, **added}, " ".join((tool, *args)))


@hookimpl
def termite_parse(invocation: Invocation) -> Command | None:
    """Match rules with `go tool compile ...`, without the directory of the toolchain."""
    found = _TOOL.search(invocation.argv[0])
    if found is None:
        return None
    command = plain_command(invocation)
    text = " ".join(("go tool", found[1], *command.argv[1:]))
    return Command(command.argv, command.exe, command.search, command.cwd, command.env, text)


@hookimpl
def termite_rules() -> list[Rule]:
    """Keep questions about the tools themselves local: dispatching them would take longer."""
    return [Rule(r"^go tool \w+ -V=full", local=True, skip_refresh=True, source=_SOURCE)]


@hookimpl
def termite_exports(env: Mapping[str, str]) -> list[str]:
    """Export go's build cache and the sources of modules."""
    home = env.get("HOME", "")
    path = env.get("GOPATH", "").split(":")[0] or (home and f"{home}/go")
    modules = env.get("GOMODCACHE") or (path and f"{path}/pkg/mod")
    return [place for place in (_build_cache(env), modules) if place.startswith("/")]


@hookimpl
def termite_droppable(env: Mapping[str, str]) -> list[str]:
    """Name the build cache, and the counters that the tools of go 1.23 write."""
    home = env.get("HOME", "")
    settings = env.get("XDG_CONFIG_HOME") or (home and f"{home}/.config")
    return [place for place in (_build_cache(env), settings and f"{settings}/go/telemetry") if place]


def _build_cache(env: Mapping[str, str]) -> str:
    home = env.get("HOME", "")
    caches = env.get("XDG_CACHE_HOME") or (home and f"{home}/.cache")
    return env.get("GOCACHE") or (caches and f"{caches}/go-build")
