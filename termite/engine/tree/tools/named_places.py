"""Find what the variables of an environment lead commands to, besides PATH.

A search path such as CPATH may name a directory in a private home. A job would search on without a
word, and take the file of the same name from a later directory: other bits. A variable may also
name a file with settings (GIT_CONFIG_GLOBAL), which a tool does without if it is absent.
"""

import os
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from termite.engine import look_calls
from termite.engine.look_errors import is_answer
from termite.engine.tree.logic.temporary_names import VARIABLES, temporary_above
from termite.engine.tree.logic.visibility import MADE_BY_SANDBOX, OF_ONE_MACHINE
from termite.engine.tree.tools.programs import way_to
from termite.engine.tree.tools.tool_homes import is_open_to_others, is_too_wide

# Paths with `:` in between, of directories or of single files. Those that only people need, such as
# MANPATH, and those of desktops, such as XDG_DATA_DIRS, are left out.
_SEARCH_PATHS = """
    CPATH C_INCLUDE_PATH CPLUS_INCLUDE_PATH OBJC_INCLUDE_PATH OBJCPLUS_INCLUDE_PATH LIBRARY_PATH COMPILER_PATH
    GCC_EXEC_PREFIX LD_LIBRARY_PATH LD_RUN_PATH LD_PRELOAD LD_AUDIT GCONV_PATH LOCPATH
    PKG_CONFIG_PATH PKG_CONFIG_LIBDIR ACLOCAL_PATH CMAKE_PREFIX_PATH CMAKE_INCLUDE_PATH CMAKE_LIBRARY_PATH
    CMAKE_PROGRAM_PATH CMAKE_MODULE_PATH GI_TYPELIB_PATH QT_PLUGIN_PATH QML2_IMPORT_PATH QMAKEPATH
    PYTHONPATH PYTHONHOME PERL5LIB PERLLIB RUBYLIB GEM_PATH NODE_PATH CLASSPATH LUA_PATH LUA_CPATH TCLLIBPATH
    GUILE_LOAD_PATH GUILE_LOAD_COMPILED_PATH OCAMLPATH CAML_LD_LIBRARY_PATH GHC_PACKAGE_PATH ERL_LIBS R_LIBS
    R_LIBS_USER JULIA_LOAD_PATH EMACSLOADPATH VPATH TEXINPUTS BIBINPUTS BSTINPUTS MAKEFILES
"""
SEARCH_PATHS = tuple(_SEARCH_PATHS.split())
MOST_CHARACTERS = 4096  # of a path
MOST_FILES = 100  # that one environment names; each is a name that stays shown


def searched_places(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield the private directories and files that the search paths of an environment name.

    Those in temporary directories are left out, because jobs see what a variable names there. This
    blocks on the disk.
    """
    for name in SEARCH_PATHS:
        for entry in environment.get(name, "").replace(";", ":").replace(" ", ":").split(":"):
            place = entry.partition("?")[0].rstrip("*/")  # Lua and Java have patterns, TeX has `//`
            if place.startswith("/") and _is_private(place):
                yield place


def named_files(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield the private files that variables name whose whole value is an absolute path.

    This blocks on the disk.
    """
    found = (value for name, value in environment.items() if value.startswith("/") and name not in SEARCH_PATHS)
    files = [path for path in dict.fromkeys(found) if _kind(path) == stat.S_IFREG and _is_private(path)]
    yield from files[:MOST_FILES]


def too_wide_place(places: Collection[str], homes: Collection[str]) -> str:
    """Return the first place that has more in it than jobs may be shown, or ""."""
    return next((place for place in places if is_too_wide(os.fsencode(place), homes)), "")


def temporary_of_one_machine(environment: Mapping[str, str]) -> str:
    """Return the directory for temporary files if it is one that no job can have, or ""."""
    for name in map(os.fsdecode, VARIABLES):
        place = environment.get(name, "")
        if place.startswith("/") and len(place) < MOST_CHARACTERS:
            path = way_to(os.fsencode(place))[1].strip(b"/")
            if (
                path.partition(b"/")[0] in OF_ONE_MACHINE
                and path not in MADE_BY_SANDBOX
                and _kind(place) == stat.S_IFDIR
            ):
                return place
    return ""


def _is_private(place: str) -> bool:
    if temporary_above(os.fsencode(place.strip("/"))) or not _kind(place):
        return False
    return not is_open_to_others(Path(os.fsdecode(way_to(os.fsencode(place))[1])))


def _kind(place: str) -> int:
    """Return the type of what a path leads to, 0 if nothing is there. Raise OSError if it fails."""
    try:
        return stat.S_IFMT(look_calls.stat(place).st_mode)
    except ValueError:  # no path can have this name
        return 0
    except OSError as error:
        if not is_answer(error):
            raise
        return 0
