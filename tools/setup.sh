#!/bin/sh
# Make this checkout ready to run. `setup.sh tests` also installs the programs that the tests need,
# with Perfetto's classes, `setup.sh fuzz` those that the fuzz targets need, and `setup.sh browser`
# a browser with its driver.
#
# The script installs Debian packages, makes .venv with pinned Python packages, and installs termite
# with its native programs into it. The folder bin gets links to termite's commands.
#
# The script announces each step, and skips steps that are done: a second run takes a few
# milliseconds. Two stamps in .venv hold a checksum of the files that a step depends on. termite is
# installed editable, so the stamp has only the names of the Python sources, not their contents.
set -eu
umask 022 # workers that run as another user read the .venv, so the caller's umask must not count
cd "$(dirname "$0")/.."

# gcc, make: for the native programs and the demo. musl-tools: the launcher's C library.
# python3-dev, pkg-config, libfuse3-dev: for pyfuse3, which is built from source.
# dpkg-dev: unpacks Debian's source packages. iproute2: makes the tests' network namespaces.
packages="gcc libc6-dev musl-tools make python3 python3-venv python3-dev pkg-config libfuse3-dev dpkg-dev iproute2"
# The tests build C++ projects, CMake and ninja projects with Debian's programs, GNU make from its
# source, and autoconf projects. bubblewrap is a sandbox that jobs may use inside their own. passt
# has pasta, which connects private networks. gettext, e2fsprogs and the headers: for GNU hello, an
# image of a disk, and a kernel module. strace judges the traces of jobs. openssh-server has sshd,
# over which tests add workers, in a network namespace. bmake, remake and scons are build tools to
# try. Debian 12 has neither samu nor just, and dune needs the large OCaml. Commands below fakeroot,
# pseudo, fakechroot and faketime are tied to their machine. libc6-dev-i386 is the C library of
# 32-bit programs. Their part of gcc takes 80 MB with what it brings along, and is not needed.
test_packages="bubblewrap g++ cmake ninja-build autoconf automake autopoint perl util-linux fakeroot passt gettext"
test_packages="$test_packages e2fsprogs strace openssh-server bmake remake scons linux-headers-$(dpkg --print-architecture)"
test_packages="$test_packages pseudo fakechroot faketime"
[ "$(dpkg --print-architecture)" != amd64 ] || test_packages="$test_packages libc6-dev-i386"
# Without cargo and go, their tests are skipped. A cargo or go that is not Debian's will do too.
optional_packages=""
command -v cargo >/dev/null || optional_packages="$optional_packages cargo"
command -v go >/dev/null || optional_packages="$optional_packages golang-go"
# libFuzzer and the sanitizers of clang are in the second one.
fuzz_packages="clang libclang-rt-dev"
browser_packages="chromium fonts-dejavu-core g++"
python=/usr/bin/python3 # the first python3 on PATH may be in a private home, which no worker can read

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
        die "this needs root, and sudo is not installed; as root, run: $*"
    fi
}

may_install() { [ "$(id -u)" = 0 ] || command -v sudo >/dev/null; }

checksum() { cat "$@" | sha256sum; }

find_missing_packages() {
    missing=""
    for package in $packages; do
        status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
        [ "$status" = installed ] || missing="$missing $package"
    done
}

install_debian_packages() {
    find_missing_packages
    [ -n "$missing" ] || return 0
    say "installing Debian packages:$missing"
    # shellcheck disable=SC2086
    set -- env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
    may_install || die "this needs root, and sudo is not installed; as root, run: apt-get install --no-install-recommends$missing"
    as_root "$@" >/dev/null 2>&1 && return 0
    say "refreshing the package lists first"
    as_root apt-get update -qq
    as_root "$@" >/dev/null
}

# Python's own tests come beside those parts of them that the system has. They are not installed:
# Debian would upgrade the machine's Python with them.
fetch_python_suite() {
    suite=.venv/python-suite
    [ ! -d "$suite" ] || return 0
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    say "fetching Python's own tests (3 MB)"
    rm -rf "$suite.new" && mkdir -p "$suite.new/usr/lib/python$version"
    if ! download_package "libpython$version-testsuite" "$suite.new"; then
        rm -rf "$suite.new"
        say "they cannot be fetched, so a test is skipped (tests/e2e/test_python_suite.py)"
        return 0
    fi
    cp -r "/usr/lib/python$version/test" "$suite.new/usr/lib/python$version"
    dpkg-deb -x "$suite.new"/*.deb "$suite.new" && mv "$suite.new" "$suite"
}

download_package() {
    (cd "$2" && apt-get download -qq "$1" >/dev/null 2>&1) && return 0
    may_install || return 1
    say "refreshing the package lists first"
    as_root apt-get update -qq && (cd "$2" && apt-get download -qq "$1" >/dev/null 2>&1)
}

open_dev_fuse() {
    [ -e /dev/fuse ] || as_root modprobe fuse 2>/dev/null || true
    [ -e /dev/fuse ] || die "/dev/fuse does not exist: load the module (modprobe fuse), or in a container add the device (--device /dev/fuse)"
    if [ "$1" = ordinary ] && [ -z "$(find /dev/fuse -perm -006)" ] && ! [ "$(id -u)" != 0 -a -r /dev/fuse -a -w /dev/fuse ]; then
        say "opening /dev/fuse to ordinary users, as Debian's udev does: chmod 0666 /dev/fuse"
        as_root chmod 0666 /dev/fuse
    fi
}

# A worker of root runs its jobs as other users, who must be able to read termite's files. In a
# checkout that was made with umask 077 they could not.
open_to_others() {
    chmod -R go+rX "$@" 2>/dev/null || say "other users cannot read $*: workers of root will not start from this checkout"
}

make_venv() {
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "termite needs Python 3.11 or later; $python is $("$python" -V)"
    say "making .venv"
    rm -rf .venv || die "cannot replace .venv: check its owner (ls -ld .venv)"
    "$python" -m venv .venv
}

install_requirements() {
    say "installing the pinned Python packages into .venv (a minute or so)"
    # A package with another content than its hash is refused. What builds pyfuse3 is installed
    # first, because pip does not check hashes in the environments that it makes for builds.
    install="install -qq --disable-pip-version-check --require-hashes --only-binary :all:"
    # shellcheck disable=SC2086
    .venv/bin/pip $install -r requirements-build.txt
    # `make dist` puts libfuse3 into that directory; where it is not, the system's is found.
    # shellcheck disable=SC2016,SC2086
    LDFLAGS='-Wl,-rpath,$ORIGIN/../termite.libs' PATH="$PWD/.venv/bin:$PATH" .venv/bin/pip $install --no-binary pyfuse3 --no-build-isolation -r requirements-dev.txt
}

install_termite() {
    say "building the native programs, installing termite into .venv"
    PATH="$PWD/.venv/bin:$PATH" .venv/bin/pip install -qq --disable-pip-version-check --no-build-isolation --no-deps -e .
}

# bin is for the user's PATH. .venv/bin is not, because its cmake, python3 and other programs would
# hide the user's own. termite's programs find each other by the targets of the links.
link_commands() {
    mkdir -p bin
    rm -f bin/termite*
    for program in .venv/bin/termite*; do
        case $program in
        */termite-sandbox | */termite-front-end) ;;
        *) ln -s "../$program" bin/ ;;
        esac
    done
}

# The path is part of the stamp, because the scripts in .venv contain it: a checkout that was moved
# needs a new .venv.
requirements_stamp=$(pwd -P | checksum - requirements.txt requirements-web.txt requirements-remote-cache.txt requirements-dev.txt requirements-build.txt tools/setup.sh)
if [ "$requirements_stamp" != "$(cat .venv/.requirements 2>/dev/null)" ]; then
    install_debian_packages
    make_venv
    install_requirements
    echo "$requirements_stamp" >.venv/.requirements
fi
# The names of the Python files are part of the stamp, because an editable install only knows the
# files that it found when it was made.
termite_stamp=$({ echo "$requirements_stamp"; find termite -name '*.py' | LC_ALL=C sort; } | checksum - pyproject.toml CMakeLists.txt termite/__init__.py $(find native -type f | LC_ALL=C sort))
if [ "$termite_stamp" != "$(cat .venv/.termite 2>/dev/null)" ]; then
    install_termite
    link_commands
    echo "$termite_stamp" >.venv/.termite
fi
[ -e bin/termite-worker ] || link_commands
# Compile all modules now. A user who may not write here, or who has set PYTHONDONTWRITEBYTECODE,
# would otherwise compile them in each build. Man pages and completions follow the same modules.
if ! [ -e .venv/.bytecode ] || ! [ -e build/man ] || [ -n "$(find termite -name '*.py' -newer .venv/.bytecode)" ]; then
    .venv/bin/python -m compileall -q termite
    .venv/bin/python tools/command_pages.py build
    touch .venv/.bytecode
fi
# Workers of root open /dev/fuse as root. The tests also run mirrors of ordinary users.
if [ "$(id -u)" != 0 ] || [ "${1:-}" = tests ]; then open_dev_fuse ordinary; else open_dev_fuse root; fi
open_to_others termite

if [ "${1:-}" = tests ]; then
    packages=$test_packages
    install_debian_packages
    packages=$optional_packages
    if may_install; then
        install_debian_packages
    else
        find_missing_packages
        [ -z "$missing" ] || say "without$missing, their tests are skipped; to run them, as root: apt-get install --no-install-recommends$missing"
    fi
    fetch_python_suite
    if ! cmp -s requirements-perfetto.txt .venv/.perfetto; then
        say "installing Perfetto's classes into .venv"
        .venv/bin/pip install -qq --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-perfetto.txt
        cp requirements-perfetto.txt .venv/.perfetto
    fi
    # Some tests run a second time as an ordinary user, who must be able to read the checkout.
    chmod go+rx . && open_to_others tests tools pyproject.toml
fi
if [ "${1:-}" = fuzz ]; then
    packages=$fuzz_packages
    install_debian_packages
fi
if [ "${1:-}" = browser ]; then
    packages=$browser_packages
    install_debian_packages
    if ! .venv/bin/python -c 'import playwright' 2>/dev/null; then
        say "installing the browser's driver into .venv"
        .venv/bin/pip install -qq --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-browser.txt
    fi
fi
