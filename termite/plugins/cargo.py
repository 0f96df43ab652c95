"""The cargo plugin: cargo starts rustc through the launcher, so that crates are compiled remotely.

RUSTC_WRAPPER makes cargo do so. The questions that cargo asks rustc about itself before a build are
answered locally. cargo runs build scripts and tests itself, without the launcher.
"""

from collections.abc import Mapping, Sequence

from termite import Command, Invocation, Rule, hookimpl, plain_command

_SOURCE = "cargo plugin"


@hookimpl
def termite_build(
    tool: str, args: Sequence[str], cwd: str, env: Mapping[str, str], preload: Mapping[str, str]
) -> Command | None:
    """Add the launcher as cargo's wrapper of rustc, unless the user has chosen a wrapper."""
    if tool != "cargo":
        return None
    wrapper = env.get("RUSTC_WRAPPER") or preload["TERMITE_LAUNCHER"]
    return Command((tool, *args), tool, True, cwd, {**env, "RUSTC_WRAPPER": wrapper}, " ".join((tool, *args)))


@hookimpl
def termite_parse(invocation: Invocation) -> Command | None:
    """Match rules with `rustc ...`, without the directory of the toolchain."""
    if invocation.argv[0].rpartition("/")[2] != "rustc":
        return None
    command = plain_command(invocation)
    text = " ".join(("rustc", *command.argv[1:]))
    return Command(command.argv, command.exe, command.search, command.cwd, command.env, text)


@hookimpl
def termite_rules() -> list[Rule]:
    """Keep questions about rustc itself local: dispatching them would take longer."""
    return [Rule(r"^rustc (?:-vV|- )", local=True, skip_refresh=True, source=_SOURCE)]


@hookimpl
def termite_exports(env: Mapping[str, str]) -> list[str]:
    """Export toolchains and crate sources, but not the rest of ~/.cargo, which has credentials."""
    home = env.get("HOME", "")
    cargo = env.get("CARGO_HOME") or (home and f"{home}/.cargo")
    rustup = env.get("RUSTUP_HOME") or (home and f"{home}/.rustup")
    paths = [f"{cargo}/{name}" for name in ("bin", "registry/src", "git/checkouts")] if cargo else []
    return paths + ([f"{rustup}/{name}" for name in ("toolchains", "settings.toml")] if rustup else [])
