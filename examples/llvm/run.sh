#!/bin/sh
# With ninja, then with make; `run.sh --variant make` is one of them alone.
set -eu
here=$(dirname "$0")
case " $* " in
*" --variant"*) exec sh "$here/../run.sh" "$here" "$@" ;;
esac
sh "$here/../run.sh" "$here" --variant ninja "$@"
exec sh "$here/../run.sh" "$here" --variant make "$@"
