"""The help of the front ends. A build does not wait for its import.

All front ends obey the same variables, so that these stand here once. A test compares them with
docs/use/reference.md.
"""

from termite.cli.flags import VERSION

_VARIABLES = """\
  TERMITE_ROOT     directory below which commands may write, for a new master (default: the
                   checkout, or the directory that has sources and build)
  TERMITE_SHORT    limit of short commands, which run here, for a new master: milliseconds;
                   0: none; auto: 50 times the dispatch overhead, at most a second (default: auto)
  TERMITE_ENV_EXCLUDE  patterns of variables that are not sent to workers, for a new master:
                   'AWS_* *_TOKEN' (default: none)
  TERMITE_TMP      private: a new master gives every command on a worker a /tmp of its own
                   (default: shared)
  TERMITE_JOB_OUTPUT   dropped: a new master records nothing that commands print (default: kept)
  TERMITE_CACHE    on: a new master uses results of earlier commands again; read: it stores no new ones
  TERMITE_SHARED_CACHE  grpc://HOST:PORT: with TERMITE_CACHE=on, a new master uses results of others too
  TERMITE_SHARED_CACHE_MODE      write: it gives them its own results, too (default: read)
  TERMITE_SHARED_CACHE_SETTINGS  file with the writers whom you trust, and your key
  TERMITE_TRACE    exact: a new master has the paths noted that commands on workers name
                   (default: off)
  TERMITE_SOCKET   socket of the master to use (default: the nearest one); empty: use no master
  TERMITE_LOCAL    never: if no worker can run a command, fail instead of running it here
  TERMITE          off: do as if termite were not installed
  TERMITE_VERBOSE  1: print at the end of every build what ran where
  TERMITE_SUMMARY  file for the records of the build: JSON if it ends in .json, else markdown
  TERMITE_LOG_FORMAT   json: lines of termite are JSON (default: text)"""

_AT = """\
  --at PATH        build the tree at PATH, wherever it stands: all commands see it there, so that
                   results are the same in every directory. A tree is built at one path for its
                   life. `termite-ctl paths` translates messages to the tree's own path."""

_SEE_ALSO = """\
The file .termite-localrc beside the socket has rules for where commands run.
`termite-ctl why COMMAND` shows where a command would run and which rule decides that.
`termite-ctl status` shows the workers, `termite-ctl help` everything else."""

_TOOL = """termite-{tool} {version}: {tool}, with its commands run on other machines

usage: termite-{tool} [--at PATH] [any arguments of {tool}]

{at}

The build uses the master that runs in this directory or above it. If there is none, termite-{tool}
starts a master with a worker on this machine, which ends ten minutes after the last build.

{variables}

{see_also}
`{tool} --help` shows the help of {tool}."""

_CMAKE = """termite-cmake {version}: cmake, with the commands of its builds run on other machines

usage: termite-cmake [--at PATH] [any arguments of cmake]

  termite-cmake -S . -B build     configure a new build directory so that termite starts every
                                  compiler, linker and generator, no matter which tool builds there
                                  afterwards (cmake, make, ninja)
  termite-cmake --build build     build on workers, however the directory was configured

{at}

A directory that was configured without termite keeps its commands, so nothing is built again.

{variables}

{see_also}
`cmake --help` shows the help of cmake."""

_BUILD = """usage: termite-build [--at PATH] TOOL [anything TOOL takes]

Run a build tool so that its commands run on other machines. The tool may be make, ninja, samu,
cmake, cargo, go, meson, or any other that an installed plugin knows (see docs/use/front-ends.md).

{at}

Example:
  termite-build cargo build --release

The build uses the master that runs in this directory or above it. If there is none, termite-build
starts a master with a worker on this machine, which ends ten minutes after the last build. A tool
that no plugin knows runs as if termite were not there.

{variables}

{see_also}"""


def tool_help(tool: str) -> str:
    """Return the help of the front end for make or ninja."""
    return _TOOL.format(tool=tool, version=VERSION, at=_AT, variables=_VARIABLES, see_also=_SEE_ALSO)


def cmake_help() -> str:
    """Return the help of termite-cmake."""
    return _CMAKE.format(version=VERSION, at=_AT, variables=_VARIABLES, see_also=_SEE_ALSO)


def build_help() -> str:
    """Return the help of termite-build."""
    return _BUILD.format(at=_AT, variables=_VARIABLES, see_also=_SEE_ALSO)
