#!/bin/sh
# Run the tests that need root with sudo, as the last part of an ordinary user's `make test`. All
# other tests have run before, as that user.
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" != 0 ] || exit 0 # for root, these tests have run with the others
if ! command -v sudo >/dev/null; then
    echo "test: the tests that need root were skipped, because sudo is not installed"
    exit 0
fi
echo "test: running the tests that need root with sudo (they make namespaces and users of their own)"
# No file of root may stay in the checkout, because the owner of the checkout could not remove it.
sudo sh -c '
    PYTHONDONTWRITEBYTECODE=1 TERMITE_TESTS=root .venv/bin/python -m pytest -p no:cacheprovider -n 2 --dist loadfile
    code=$?
    chown -R --reference=pyproject.toml build termite
    exit $code'
