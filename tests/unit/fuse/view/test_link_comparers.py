"""Commands that name a program which compares inode numbers, and others."""

from termite.fuse.view.link_comparers import Comparers, comparers_of, names_comparer
from tests.unit.tables import each_row


@each_row(
    "text",
    [
        "ln a b && tar cf t a b",
        "ln a b;/bin/tar cf t .",
        "ln a b; rsync -aH a b ../x",
        "ln a b; find . -links +1",
        "ln a b; du -s .",
        "ln a b; [ a -ef b ] && x",
        "ln a b; (stat -c %i a b)",
        "ln a b; python3 -c 'import os; print(os.stat(\"a\").st_ino)'",
        "ln a b; dpkg-deb --build x",
        "ln d/a d/b && cp -a d e",
        "ln d/a d/b; cp -rd d e",
        "ln d/a d/b; cp -r --preserve=links d e",
        "cp -al d m; cp -a d m x",
        "ln a b; cp a b",
        "ln a b; install a b",
        "ln d/a d/b; mv d e",
        "./make-links d; mv d e",
        "ln -s x y; ln d/a d/b; mv d e",
        "ln d/a d/b; /sbin/mke2fs -q -d d img 400k",
        "ln a b; ls -l -i a b",
        "ln a b; ls --inode a b",
        "ln a b; stat a b",
        "ln a b; stat -L a b",
        'perl -e \'link("a","b"); @a=stat "a"; print $a[1]\'',
        'python3 -c \'import os,tarfile; os.link("a", "b"); tarfile.open("t", "w").add("a")\'',
        "python3 -c 'import os; os.path.sameopenfile(3, 4)'",
        'python3 -c \'import shutil; shutil.move("d", "e")\'',
    ],
)
def test_a_program_that_compares_is_found(text: str) -> None:
    assert names_comparer((b"sh", b"-c", text.encode()))


def test_a_word_of_its_own_may_be_an_option() -> None:
    assert names_comparer((b"env", b"ls", b"-i", b"a"))


@each_row(
    "text",
    [
        "ln a b; touch c",
        "ln one two; echo x >>two; cat one",
        "ln a.tar b.tar; gcc -c x.c",
        "ln a start; rm start",
        "ln b c; stat -c %a a c; ls -l",
        "ln b c; stat --format=%a a c; ls -l d-i",
        "ln a b || cp a b; touch c",
        "cp -al d e && strip e/prog",
        "mv x d; cp x y; install x z; stat x; ls -i; ln a b; touch c",
        "ln -s a b; cp a c; mv c d; ln e f; touch g",
        "cp -r --link d e && strip e/prog",
        "ln a b 2>/dev/null || ln -s a b ||cp a b; touch c",
        "ln a b; gcc -c gcc/cp/mv.c src/stat.c lib/cp.c -o my-install",
    ],
)
def test_other_commands_stay(text: str) -> None:
    assert not names_comparer((b"sh", b"-c", text.encode()))
    assert comparers_of((b"sh", b"-c", text.encode())) is Comparers.NONE


@each_row(
    "argv",
    [
        ("sh", "-c", "ln a b; ./compare a b"),
        ("sh", "-c", "ln a b; if x; then python3 compare.py; fi"),
        ("sh", "-c", "echo $(./compare a b)"),
        ("sh", "-c", "X=1 >log ./compare a b"),
        ("sh", "-c", "ln a b; eval $COMPARE"),
        ("sh", "-c", "ln a b; sh compare"),
        ("sh", "compare"),
        ("./compare", "a", "b"),
        ("python3", "compare.py"),
    ],
)
def test_a_script_or_an_unknown_program_may_compare(argv: tuple[str, ...]) -> None:
    words = tuple(word.encode() for word in argv)
    assert comparers_of(words) is Comparers.UNKNOWN


@each_row("argv", [("ln", "a", "b"), ("/usr/bin/cp", "-l", "a", "b"), ("rustc", "a.rs")])
def test_a_known_program_without_a_shell_stays(argv: tuple[str, ...]) -> None:
    assert comparers_of(tuple(word.encode() for word in argv)) is Comparers.NONE
