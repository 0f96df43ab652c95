"""Commands that set modes themselves are told by their text."""

from termite.engine.decide.logic.attribute_programs import depends_on_owners, may_set_modes
from tests.unit.tables import each_row


@each_row(
    "text",
    [
        "chmod 644 f",
        "cd x && /usr/bin/install -m 755 a b",
        "rm -f l.a; arm-linux-gnueabi-ar rcs l.a x.o",
        "mkdir -p -m 700 d",
        "mkdir -pm755 d",
        "(cp a b)",
        "tar xf t.tar",
        "sh gen.sh",
        "./gen >out",
        "python3 gen.py",
        "umask 077; echo 1 >f",
        "mv x/f f",
        "echo 1 >f && ./after",
        "echo $(./gen) >f",
        "if true; then ./gen; fi",
        "X=1 CC=gcc ./gen",
        "sed -i s/1/2/ f",
        "eval chmod 644 f",
        "find . -name x -exec chmod 644 {} +",
        "xargs chmod 644 <list",
        "$CC -c x.c",
        "env -i ./gen",
        "awk -f gen.awk x",
        ". ./gen.sh",
    ],
)
def test_a_program_that_sets_modes_is_found(text: str) -> None:
    assert may_set_modes(text)


@each_row(
    "text",
    [
        "gcc -c cp.c -o install.o",
        "mkdir -p d; gcc -m64 -c x.c",
        "echo 1 >tar.txt",
        "ld -o chmod.x a.o",
        "g++ -DAR=1 -Icp-lib/x y.cc",
        "cpp x",
        "/usr/bin/arm-linux-gnueabi-gcc-12 -c x.c; echo chmod",
        "mkdir -p d/e; echo 1 >d/f; touch d/g; mkfifo d/p; ln -s f d/l",
        "echo 'a; chmod 644 x' >f; echo \"b && sh x\" >>f",
        "for n in 1 2; do echo $n >f$n; done",
        "if test -e x; then cat x | sed s/a/b/ >y 2>&1; else : >y; fi",
        "cd d && LANG=C sort x >y",
        "set -e; ! grep -q x y && exec cc -o p $(cat list)",
    ],
)
def test_other_commands_are_not(text: str) -> None:
    assert not may_set_modes(text)


ROOT = "/home/u/project"

OUTSIDE = [
    "tar cf x.tar /usr/share/doc/make",
    "tar --owner=0 -C /usr/include -cf x.tar .",
    "cd sub && stat -c %U /etc/passwd",
    "/usr/bin/stat /usr/bin/env",
    "ls -l /etc/passwd",
    "ls -a -n /etc",
    "find /etc -name x -user root",
    "find /usr -writable",
    "test -w /usr && echo yes",
    "[ ! -w /usr/lib ] || exit 1",
    "if [ -O '/etc/passwd' ]; then echo mine; fi",
    "find /usr/lib -name x | cpio -o >x",
    'rsync -a "/usr/share/x/" d',
    "mksquashfs /usr/share/x x.sqfs",
]
NOT_OUTSIDE = [
    "tar cf x.tar d",
    f"tar cf x.tar -C {ROOT}/d .",
    f"ls -l {ROOT}",
    "/usr/bin/tar cf x.tar d",
    "cd d && /bin/ls -l",
    "(/usr/bin/stat f)",
    "exec /usr/bin/tar cf x.tar d",
    "tar cf /tmp/x.tar d 2>/dev/null",
    "ls /usr/include",
    "find /usr/include -name x.h",
    "test -e /usr/include/x.h",
    "gcc -I/usr/include/x -c stat.c -o sub/stat/x.o",
    "gcc -c tar.c -o tar.o -I/opt/include",
    "cp /usr/share/x y",
    "git -C /usr/src/x log",
]


@each_row("text", OUTSIDE)
def test_a_command_that_shows_owners_outside_the_tree_is_recognized(text: str) -> None:
    assert depends_on_owners(text, ROOT, is_mixed=False, is_root=False)
    assert not depends_on_owners(text, ROOT, is_mixed=False, is_root=True)


@each_row("text", NOT_OUTSIDE)
def test_a_command_that_meets_only_its_users_files_is_not(text: str) -> None:
    assert not depends_on_owners(text, ROOT, is_mixed=False, is_root=False)


@each_row("text", ["tar cf x.tar d", "cp -a d e", "cp -rp d e", "cp --preserve=all a b", "git describe", "ls -l"])
@each_row("is_root", [True, False])
def test_in_a_tree_of_several_users_each_such_command_is_recognized(text: str, *, is_root: bool) -> None:
    assert depends_on_owners(text, ROOT, is_mixed=True, is_root=is_root)


@each_row("text", ["gcc -c a.c -o a.o", "cp a b", "cp -r a b", "ls", "echo git.h", "mv a b", "true"])
def test_other_commands_of_such_a_tree_are_not(text: str) -> None:
    assert not depends_on_owners(text, ROOT, is_mixed=True, is_root=True)
