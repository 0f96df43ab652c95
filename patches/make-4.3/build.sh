#!/bin/sh
# Builds GNU make 4.3 with MAKE_SHELL: build.sh SOURCE_DIR PREFIX
#
# SOURCE_DIR is Debian's source package make-dfsg 4.3, unpacked, and is not changed. The result is
# PREFIX/bin/make. Debian leaves the generated files out of its package, so the build needs
# autoconf, automake, autopoint and pkg-config.
# With STATIC=1 in the environment, PREFIX/bin/make-static is the same make, linked statically.
set -eu

[ $# = 2 ] || { echo "usage: build.sh SOURCE_DIR PREFIX" >&2; exit 2; }
source=$1
prefix=$(mkdir -p "$2" && cd "$2" && pwd)
patches=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
# A make that started us must not lend its flags, nor its job slots, to this build.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKE_SHELL

cp -a "$source/." "$work"
cd "$work"
for patch in "$patches"/*.patch; do
    patch -p1 --fuzz=0 <"$patch"
done
autoreconf --force --install
# Where make looks for included files is compiled in; PREFIX could not be, with a space in it.
./configure --prefix=/usr --without-guile
make -j2
install -D make "$prefix/bin/make"
if [ -n "${STATIC-}" ]; then
    rm make
    make LDFLAGS=-static
    install -D make "$prefix/bin/make-static"
fi
