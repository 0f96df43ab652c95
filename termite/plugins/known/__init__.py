"""The known plugin: tools of C and C++ builds whose results may be used after one execution.

Each module has the entries for one kind of tool: `c_compilers`, `linkers`, `archivers`,
`generators`, `file_tools` and `text_tools`. `tool_options` reads the options for all of them.
Do not touch: options that are not listed are refused, but for those of compilers and linkers.
`tests/e2e/known_cases.py` executes each entry twice, and shows that what the entry refuses really
differs.
"""

from termite import KnownTool, hookimpl
from termite.plugins.known.archivers import ARCHIVERS
from termite.plugins.known.c_compilers import COMPILERS
from termite.plugins.known.file_tools import FILE_TOOLS
from termite.plugins.known.generators import GENERATORS
from termite.plugins.known.linkers import LINKERS
from termite.plugins.known.text_tools import TEXT_TOOLS


@hookimpl
def termite_known_tools() -> list[KnownTool]:
    """Vouch for compilers, linkers, binutils, generators, and small tools of files and texts."""
    return [*COMPILERS, *LINKERS, *ARCHIVERS, *GENERATORS, *FILE_TOOLS, *TEXT_TOOLS]
