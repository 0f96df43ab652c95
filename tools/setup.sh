#!/bin/sh
# Makes this checkout ready to run: Debian packages, .venv with pinned Python packages, termite itself with its native programs,
# and bin, which has links to its commands.
#
# It says what it does before it does it, and does only what is missing: a second run takes a few milliseconds. Two stamps in
# .venv hold the checksum of what was installed from; termite is installed editable, so of Python sources only the names count.
set -eu
umask 022 # the .venv is read by workers that run as another user, whatever the caller's umask is
cd "$(dirname "$0")/.."

# gcc make: native programs, and what the demo builds. musl-tools: the launcher's C library.
# python3-dev pkg-config libfuse3-dev: pyfuse3 comes as source. dpkg-dev: unpacks Debian's source packages. iproute2: the tests' network namespaces.
packages="gcc libc6-dev musl-tools make python3 python3-venv python3-dev pkg-config libfuse3-dev dpkg-dev iproute2"
# What the tests build with besides: a sandbox of others (bubblewrap), C++ projects, Debian's own cmake and ninja, GNU make from its source, autoconf projects.
test_packages="bubblewrap g++ cmake ninja-build autoconf automake autopoint perl util-linux"
# cargo and go, whose tests would be skipped without them: of whatever origin they are.
command -v cargo >/dev/null || test_packages="$test_packages cargo"
command -v go >/dev/null || test_packages="$test_packages golang-go"
python=/usr/bin/python3 # Debian's own: the first on PATH may live in a private home that no worker can read

say() { echo "setup: $*"; }
die() {
    echo "setup: $*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this needs root, and there is no sudo; as root, run: $*"
    fi
}

checksum() { cat "$@" | sha256sum; }

install_debian_packages() {
    missing=""
    for package in $packages; do
        status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
        [ "$status" = installed ] || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    say "installing Debian packages:$missing"
    # shellcheck disable=SC2086
    set -- env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
        die "this needs root, and there is no sudo; as root, run: apt-get install --no-install-recommends$missing"
    fi
    as_root "$@" >/dev/null 2>&1 && return 0
    say "refreshing the package lists first"
    as_root apt-get update -qq
    as_root "$@" >/dev/null
}

open_dev_fuse() {
    [ -e /dev/fuse ] || as_root modprobe fuse 2>/dev/null || true
    [ -e /dev/fuse ] || die "there is no /dev/fuse: load the module (modprobe fuse), or in a container add the device (--device /dev/fuse)"
    if [ "$1" = ordinary ] && [ -z "$(find /dev/fuse -perm -006)" ] && ! [ "$(id -u)" != 0 -a -r /dev/fuse -a -w /dev/fuse ]; then
        say "opening /dev/fuse to ordinary users, as Debian's udev does: chmod 0666 /dev/fuse"
        as_root chmod 0666 /dev/fuse
    fi
}

# What jobs of a root worker run from must be theirs to read, who are other users: also in a checkout made with umask 077.
open_to_others() {
    chmod -R go+rX "$@" 2>/dev/null || say "others cannot read $*: workers of root will not start from this checkout"
}

make_venv() {
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "Python 3.11 is needed; $python is $("$python" -V)"
    say "making .venv"
    rm -rf .venv || die ".venv cannot be replaced: who owns it? (ls -ld .venv)"
    "$python" -m venv .venv
}

install_requirements() {
    say "installing the pinned Python packages into .venv (a minute or so)"
    PIP_CONSTRAINT=requirements-build.txt .venv/bin/pip install -qq --disable-pip-version-check -r requirements-dev.txt
}

install_termite() {
    say "building the native programs, installing termite into .venv"
    PATH="$PWD/.venv/bin:$PATH" .venv/bin/pip install -qq --disable-pip-version-check --no-build-isolation --no-deps -e .
}

# For PATH, without what else .venv/bin has: a cmake, a python3 and more that would stand before the user's own. The
# programs find each other by where the links lead.
link_commands() {
    mkdir -p bin
    rm -f bin/termite*
    for program in .venv/bin/termite*; do
        [ "$program" = .venv/bin/termite-sandbox ] || ln -s "../$program" bin/
    done
}

# The path is part of the stamp: the scripts in .venv name it, so a checkout that was moved needs a new .venv.
requirements_stamp=$(pwd -P | checksum - requirements.txt requirements-dev.txt requirements-build.txt tools/setup.sh)
if [ "$requirements_stamp" != "$(cat .venv/.requirements 2>/dev/null)" ]; then
    install_debian_packages
    make_venv
    install_requirements
    echo "$requirements_stamp" >.venv/.requirements
fi
# The names of the Python files, too: what an editable install has found at first is not looked for again.
termite_stamp=$({ echo "$requirements_stamp"; find termite -name '*.py' | LC_ALL=C sort; } | checksum - pyproject.toml CMakeLists.txt native/*/*)
if [ "$termite_stamp" != "$(cat .venv/.termite 2>/dev/null)" ]; then
    install_termite
    link_commands
    echo "$termite_stamp" >.venv/.termite
fi
[ -e bin/termite-worker ] || link_commands
# Whoever may not write here, or has PYTHONDONTWRITEBYTECODE set, would compile what a front end imports in each build.
if ! [ -e .venv/.bytecode ] || [ -n "$(find termite -name '*.py' -newer .venv/.bytecode)" ]; then
    .venv/bin/python -m compileall -q termite
    touch .venv/.bytecode
fi
# Root's workers open it as root; the tests also run mirrors of ordinary users.
if [ "$(id -u)" != 0 ] || [ "${1:-}" = tests ]; then open_dev_fuse ordinary; else open_dev_fuse root; fi
open_to_others termite

if [ "${1:-}" = tests ]; then
    packages=$test_packages
    install_debian_packages
    # Some tests run once more as a user without rights.
    chmod go+rx . && open_to_others tests tools pyproject.toml
fi
