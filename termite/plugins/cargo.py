"""cargo: every crate is compiled by the launcher (RUSTC_WRAPPER), so it is compiled remotely.

Local: what cargo asks rustc about itself before a build. Build scripts and tests are run by cargo, here, as ever.
"""

from collections.abc import Mapping, Sequence

from termite import Command, Invocation, Rule, hookimpl, plain_command

_SOURCE = "cargo plugin"


@hookimpl
def termite_build(
    tool: str, args: Sequence[str], cwd: str, env: Mapping[str, str], preload: Mapping[str, str]
) -> Command | None:
    """A wrapper that the user has chosen stays."""
    if tool != "cargo":
        return None
    wrapper = env.get("RUSTC_WRAPPER") or preload["TERMITE_LAUNCHER"]
    return Command((tool, *args), tool, True, cwd, {**env, "RUSTC_WRAPPER": wrapper}, " ".join((tool, *args)))


@hookimpl
def termite_parse(invocation: Invocation) -> Command | None:
    """`rustc ...`, wherever the toolchain lives."""
    if invocation.argv[0].rpartition("/")[2] != "rustc":
        return None
    command = plain_command(invocation)
    text = " ".join(("rustc", *command.argv[1:]))
    return Command(command.argv, command.exe, command.search, command.cwd, command.env, text)


@hookimpl
def termite_rules() -> list[Rule]:
    """Questions are answered at once here; a worker would need a moment."""
    return [Rule(r"^rustc (?:-vV|- )", local=True, skip_refresh=True, source=_SOURCE)]


@hookimpl
def termite_exports(env: Mapping[str, str]) -> list[str]:
    """Toolchains and the sources of crates: not the rest of ~/.cargo, where credentials are."""
    home = env.get("HOME", "")
    cargo = env.get("CARGO_HOME") or (home and f"{home}/.cargo")
    rustup = env.get("RUSTUP_HOME") or (home and f"{home}/.rustup")
    paths = [f"{cargo}/{name}" for name in ("bin", "registry/src", "git/checkouts")] if cargo else []
    return paths + ([f"{rustup}/{name}" for name in ("toolchains", "settings.toml")] if rustup else [])
