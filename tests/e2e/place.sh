#!/bin/sh
# Prepare a mount namespace for one kind of place, print "ready", and keep the namespace alive until
# standard input ends. The caller starts this script in a new namespace (unshare --mount). Nothing
# outside of that namespace changes.
#
# usage: place.sh KIND BASE CHECKOUT [UID]
#   root       private, empty /tmp and /var/tmp
#   ordinary   the same, and what the user UID needs: a name, /dev/fuse, and access to the checkout
#              even below a closed home
#   bare       a root file system with the files of Python and termite only: no shell, no compiler
#   no-fuse    as root, but there is no /dev/fuse
#   closed-fuse  as ordinary, but /dev/fuse is for root only
set -eu
umask 022
kind=$1 base=$2 checkout=$3 uid=${4:-0}
kept=/mnt

keep() { # bind the directories that must stay visible to a place that later mounts do not hide
    mount -t tmpfs tmpfs "$kept"
    mkdir "$kept/base" "$kept/checkout"
    mount --rbind "$base" "$kept/base"
    mount --rbind "$checkout" "$kept/checkout"
}

restore() { # ROOT: bind the directories back to their own paths
    mkdir -p "$1$base" "$1$checkout"
    mount --rbind "$kept/base" "$1$base"
    mount --rbind "$kept/checkout" "$1$checkout"
}

open_ancestors() { # PATH: cover the first directory on the way that is closed to others with an open one
    path=""
    old_ifs=$IFS
    IFS=/
    for name in ${1#/}; do
        path="$path/$name"
        if [ -d "$path" ] && [ $((0$(stat -c %a "$path") & 1)) = 0 ]; then
            mount -t tmpfs -o mode=755 tmpfs "$path"
            break
        fi
    done
    IFS=$old_ifs
}

private_temporary_directories() {
    mount -t tmpfs -o mode=1777 tmpfs /tmp
    mount -t tmpfs -o mode=1777 tmpfs /var/tmp
}

fuse_device() { # MODE
    mknod "$kept/fuse" c 10 229
    chmod "$1" "$kept/fuse"
    mount --bind "$kept/fuse" /dev/fuse
}

named_user() {
    { cat /etc/passwd; echo "builder:x:$uid:$uid:builder:$base/home:/bin/sh"; } >"$kept/passwd"
    { cat /etc/group; echo "builder:x:$uid:"; } >"$kept/group"
    mount --bind "$kept/passwd" /etc/passwd
    mount --bind "$kept/group" /etc/group
}

device_nodes() { # DIRECTORY
    mknod -m 0666 "$1/null" c 1 3
    mknod -m 0666 "$1/zero" c 1 5
    mknod -m 0666 "$1/full" c 1 7
    mknod -m 0666 "$1/random" c 1 8
    mknod -m 0666 "$1/urandom" c 1 9
    mknod -m 0666 "$1/tty" c 5 0
}

no_fuse_device() {
    mount -t tmpfs -o mode=755 tmpfs /dev
    device_nodes /dev
    ln -s /proc/self/fd /dev/fd
}

bare_root() {
    root="$kept/root"
    mkdir "$root"
    mount -t tmpfs -o mode=755 tmpfs "$root"
    python=$(readlink -f /usr/bin/python3)
    version=$(basename "$python")
    libraries=usr/lib/$(dpkg --print-architecture | sed 's/amd64/x86_64/; s/arm64/aarch64/')-linux-gnu
    cd "$root"
    mkdir -p usr/bin usr/lib/python3 "usr/lib/$version" "$libraries" usr/lib64 proc sys dev etc root tmp var/tmp old
    chmod 1777 tmp var/tmp
    ln -s usr/bin bin
    ln -s usr/lib lib
    ln -s usr/lib64 lib64
    cp "$python" usr/bin/
    ln -s "$version" usr/bin/python3
    cp /usr/bin/umount usr/bin/
    cp -a /lib64/. usr/lib64/
    for directory in usr/lib/python3 "usr/lib/$version" "$libraries"; do
        mount --bind -o ro "/$directory" "$directory"
    done
    echo "root:x:0:0:root:/root:/bin/sh" >etc/passwd
    echo "127.0.0.1 localhost" >etc/hosts
    mount --rbind /proc proc
    device_nodes dev
    mknod -m 0600 dev/fuse c 10 229
    restore "$root"
    pivot_root . old
    cd /
    /usr/bin/umount -l /old
}

mount --make-rprivate /
keep
case $kind in
root)
    private_temporary_directories
    restore ""
    ;;
ordinary | closed-fuse)
    private_temporary_directories
    open_ancestors "$checkout"
    restore ""
    named_user
    [ "$kind" = ordinary ] && fuse_device 0666 || fuse_device 0600
    ;;
no-fuse)
    private_temporary_directories
    restore ""
    no_fuse_device
    ;;
bare) bare_root ;;
*)
    echo "place.sh: no such kind: $kind" >&2
    exit 2
    ;;
esac
[ "$kind" = bare ] || umount -l "$kept"
echo ready
read -r _ || true
