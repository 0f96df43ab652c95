#!/bin/sh
# Builds GNU make 3.82 with these patches: build.sh SOURCE_DIR PREFIX [PATCH...]
#
# SOURCE_DIR is the unpacked release, or a checkout of its tag, and is not changed. The result is
# PREFIX/bin/make.
# A checkout has no generated files: it needs autoconf, automake and autopoint besides.
# PATCH names a patch to apply; without one, all are applied. LDFLAGS=-static in the environment
# links make statically.
set -eu

[ $# -ge 2 ] || { echo "usage: build.sh SOURCE_DIR PREFIX [PATCH...]" >&2; exit 2; }
source=$1
prefix=$(mkdir -p "$2" && cd "$2" && pwd)
patches=$(cd "$(dirname "$0")" && pwd)
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
# A make that started us must not lend its flags, nor its job slots, to this build.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKE_SHELL

cp -a "$source/." "$work"
cd "$patches"
[ $# -gt 0 ] || set -- *.patch
cd "$work"
for patch in "$@"; do
    patch -p1 --fuzz=0 <"$patches/$patch"
done
[ -e configure ] || autoreconf --force --install
# Translations are not in a checkout.
./configure --prefix="$prefix" --disable-nls
# Not all: the manual of a checkout would have to be made, by texinfo.
make -j2 -C glob
make -j2 make
make install-binPROGRAMS install-man
