#!/bin/sh
# Start record.py. The preload library can only start a program that is named by one word.
checkout=$(cd "$(dirname "$0")/.." && pwd)
PYTHONPATH="$checkout:$checkout/tools" exec "$checkout/.venv/bin/python" "$checkout/bench/record.py" "$@"
