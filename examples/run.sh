#!/bin/sh
# What every examples/NAME/run.sh is: the example in its directory, with the tools of this checkout. --help lists the options.
set -eu
example=$1
shift
checkout=$(cd "$(dirname "$0")/.." && pwd)
[ -x "$checkout/.venv/bin/termite-make" ] || sh "$checkout/tools/setup.sh"
exec "$checkout/.venv/bin/python" "$checkout/tools/example.py" "$example" "$@"
