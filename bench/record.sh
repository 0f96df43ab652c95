#!/bin/sh
# What record.py puts where the launcher stands: it must be one word.
checkout=$(cd "$(dirname "$0")/.." && pwd)
PYTHONPATH="$checkout:$checkout/tools" exec "$checkout/.venv/bin/python" "$checkout/bench/record.py" "$@"
