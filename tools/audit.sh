#!/bin/sh
# Ask the advisory database of PyPI about every pinned package.
#
# Exit codes: 0: no hole is known. 1: there are holes, which are listed. 3: the database, or the
# index with the program that asks it, could not be reached, so that nothing is known. AUDIT_PROGRAM
# is the program that asks; by default it is installed first, into an environment of its own.
set -u
cd "$(dirname "$0")/.."
UNKNOWN=3
audit=${AUDIT_PROGRAM:-build/audit/bin/pip-audit}

give_up() {
    echo "audit: NOT DONE: $*; nothing is known about the packages. Try again when PyPI can be reached." >&2
    exit $UNKNOWN
}

if [ -z "${AUDIT_PROGRAM:-}" ] && ! [ -x "$audit" ]; then
    rm -rf build/audit
    { /usr/bin/python3 -m venv build/audit && build/audit/bin/pip install -qq --disable-pip-version-check \
        --require-hashes --only-binary :all: -r requirements-audit.txt; } || {
        rm -rf build/audit
        give_up "pip-audit could not be installed"
    }
fi
report=$(mktemp) || exit 1
trap 'rm -f "$report"' EXIT
# The program exits with 1 for a hole and for an error. Only after an answer it writes the report.
"$audit" --strict --disable-pip --require-hashes --progress-spinner off --format json --output "$report" \
    -r requirements-dev.txt -r requirements-build.txt -r requirements-perfetto.txt \
    -r requirements-browser.txt
code=$?
[ -s "$report" ] || give_up "the advisory database gave no answer about every package (pip-audit ended with $code)"
[ $code = 0 ] || {
    cat "$report"
    echo "audit: packages with known holes are in the list above" >&2
    exit 1
}
echo "audit: no pinned package has a known hole"
