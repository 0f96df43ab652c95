#!/bin/sh
# Run the variant with ninja, then the one with make. `run.sh --variant make` runs only that one.
set -eu
here=$(dirname "$0")
case " $* " in
*" --variant"*) exec sh "$here/../run.sh" "$here" "$@" ;;
esac
sh "$here/../run.sh" "$here" --variant ninja "$@"
exec sh "$here/../run.sh" "$here" --variant make "$@"
