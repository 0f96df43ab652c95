"""The plugin for managers of tools in a home directory, such as pyenv, nvm, rbenv, asdf and opam.

A private home would hide their tools from jobs. If a directory of PATH belongs to a manager, its
tools are exported, and nothing else of its directory. The cargo plugin exports rustup's tools.
Virtual environments of Python are known without a plugin.
"""

from collections.abc import Mapping
from typing import NamedTuple

from termite import hookimpl


class Manager(NamedTuple):
    """A manager of tools.

    Its top directory is named by `variable`, or else is `place` below the home directory. `parts`
    are the entries of it that tools need. With "*", the environment around the directory of PATH
    counts too: the entry of the top directory that has it.
    """

    variable: str
    place: str
    parts: tuple[str, ...]


_SHIMS = ("bin", "libexec", "lib", "plugins", "shims", "version", "versions")
MANAGERS = (
    Manager("PYENV_ROOT", ".pyenv", (*_SHIMS, "pyenv.d")),
    Manager("RBENV_ROOT", ".rbenv", (*_SHIMS, "rbenv.d")),
    Manager("NODENV_ROOT", ".nodenv", (*_SHIMS, "nodenv.d")),
    Manager("NVM_DIR", ".nvm", ("alias", "nvm-exec", "nvm.sh", "versions")),
    Manager("ASDF_DATA_DIR", ".asdf", ("asdf.sh", "bin", "installs", "lib", "plugins", "shims")),
    Manager("ASDF_DIR", ".asdf", ("asdf.sh", "bin", "lib")),
    Manager("MISE_DATA_DIR", ".local/share/mise", ("installs", "plugins", "shims")),
    Manager("OPAMROOT", ".opam", ("*", "opam-init")),
    Manager("SDKMAN_DIR", ".sdkman", ("candidates", "libexec")),
    Manager("GHCUP_INSTALL_BASE_PREFIX", ".ghcup", ("bin", "ghc", "hls")),
    Manager("UV_PYTHON_INSTALL_DIR", ".local/share/uv/python", ("*",)),
    Manager("PIPX_HOME", ".local/share/pipx", ("venvs",)),
    Manager("VOLTA_HOME", ".volta", ("bin", "tools")),
)
_INSIDE_PREFIX = ("GHCUP_INSTALL_BASE_PREFIX",)  # the variable names the directory around `place`


@hookimpl
def termite_exports(env: Mapping[str, str]) -> list[str]:
    """Export the tools of each manager that has a directory in PATH."""
    path = env.get("PATH", "").split(":")
    return [part for manager in MANAGERS for part in _parts_in_use(manager, path, env)]


def _parts_in_use(manager: Manager, path: list[str], env: Mapping[str, str]) -> list[str]:
    top = _top_of(manager, env)
    below = [place for place in path if place.startswith(f"{top}/")]
    if not top.startswith("/") or not below:
        return []
    exported = [f"{top}/{part}" for part in manager.parts if part != "*"]
    if "*" in manager.parts:
        exported += sorted({f"{top}/{place[len(top) + 1 :].split('/')[0]}" for place in below})
    return exported


def _top_of(manager: Manager, env: Mapping[str, str]) -> str:
    named = env.get(manager.variable, "").rstrip("/")
    if named:
        return f"{named}/{manager.place}" if manager.variable in _INSIDE_PREFIX else named
    home = env.get("HOME", "").rstrip("/")
    return f"{home}/{manager.place}" if home else ""
