"""The caches plugin: files that programs keep outside the tree only to be faster the next time.

A build is right without them, so a command that writes nothing else outside the tree stays on a
worker. Most programs keep theirs below XDG_CACHE_HOME, or have a variable of their own.
"""

from collections.abc import Mapping

from termite import hookimpl

# Each variable names a directory, and takes the place of the default below the home directory.
_CACHES = {
    "XDG_CACHE_HOME": ".cache",  # clang's modules, go, pip, ccache 4, sccache, fontconfig
    "CCACHE_DIR": ".ccache",
    "PIP_CACHE_DIR": "",
    "npm_config_cache": ".npm",
    "PYTHONPYCACHEPREFIX": "",
}
_ANYWHERE = (
    "__pycache__",  # compiled modules of Python
    "hsperfdata_*",  # counters of Java's virtual machine
    "org.llvm.clang*",  # clang's modules, if it has no cache directory
)


@hookimpl
def termite_droppable(env: Mapping[str, str]) -> list[str]:
    """Name the caches that programs keep for themselves."""
    home = env.get("HOME", "")
    places = [env.get(name) or (home and default and f"{home}/{default}") for name, default in _CACHES.items()]
    return [*(place for place in places if place), *_ANYWHERE]
