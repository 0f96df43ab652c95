#!/bin/sh
# Build the example in the given directory with the tools of this checkout; every
# examples/NAME/run.sh calls this script. --help lists the options.
set -eu
example=$1
shift
checkout=$(cd "$(dirname "$0")/.." && pwd)
[ -x "$checkout/.venv/bin/termite-make" ] || sh "$checkout/tools/setup.sh"
exec "$checkout/.venv/bin/python" "$checkout/tools/example.py" "$example" "$@"
