#!/bin/sh
# The last part of an ordinary user's `make test`: what needs root, by sudo. Everything else has run before, as that user.
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" != 0 ] || exit 0 # they have run with the others
if ! command -v sudo >/dev/null; then
    echo "test: there is no sudo: what needs root was skipped"
    exit 0
fi
echo "test: what needs root, by sudo (it makes namespaces and users of its own)"
# Nothing of root's may stay in the checkout, where its owner could not remove it.
sudo sh -c '
    PYTHONDONTWRITEBYTECODE=1 TERMITE_TESTS=root .venv/bin/python -m pytest -p no:cacheprovider
    code=$?
    chown -R --reference=pyproject.toml build termite
    exit $code'
