#!/bin/sh
# Run the benchmark with the tools of this checkout:
#
#     sh bench/run.sh [--only PART,...] [--rounds N] [--quick]
#
# --help lists all options.
set -eu
checkout=$(cd "$(dirname "$0")/.." && pwd)
[ -x "$checkout/.venv/bin/termite-make" ] || sh "$checkout/tools/setup.sh" tests
PYTHONPATH="$checkout:$checkout/tools" exec "$checkout/.venv/bin/python" -m bench "$@"
