"""A job never runs another program than the one that the user's search path leads to.

Programs in a private home are shown if a tool manager is known. Otherwise the command that tries
one runs on the master's machine.
"""

import os
import shutil
import sys
import uuid
from pathlib import Path

import pytest

from termite.engine.errors import ExitCode, Reason
from tests.e2e.cluster import Tree
from tests.e2e.places import Outcome

PATH = "/usr/local/bin:/usr/bin:/bin"
CHOSEN = '#!/bin/sh\necho chosen "$@"\n'
UNSEEN = Reason.UNSEEN_PROGRAM


class Home:
    """A home directory that nobody but the user of the tree may enter."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.top = tree.where.base / f"closed-{uuid.uuid4().hex[:8]}"
        self.mkdir("")
        self.top.chmod(0o700)

    def mkdir(self, name: str) -> Path:
        path = self.top / name
        for part in (*reversed(path.parents), path):
            if not part.exists():
                part.mkdir()
                self.tree.own(part)
        return path

    def write(self, name: str, text: str, mode: int = 0o755) -> Path:
        path = self.mkdir(str(Path(name).parent)) / Path(name).name
        path.write_text(text)
        path.chmod(mode)
        self.tree.own(path)
        return path

    def link(self, name: str, target: Path | str) -> Path:
        path = self.mkdir(str(Path(name).parent)) / Path(name).name
        path.symlink_to(target)
        self.tree.own(path)
        return path

    def env(self, *directories: str) -> dict[str, str]:
        return {"HOME": str(self.top), "PATH": ":".join([*(f"{self.top}/{d}" for d in directories), PATH])}


@pytest.fixture
def home(tree: Tree) -> Home:
    return Home(tree)


def veiled(path: Path) -> str:
    """Return shell text for a path that does not name it: a command that does so runs here."""
    return f"$(printf /){str(path)[1:]}"


def assert_no_worker_gets(tree: Tree, script: str, env: dict[str, str]) -> None:
    """Assert that a script on a worker does not get what it looks for, and that it is sent home."""
    jobs = tree.jobs()
    done = tree.termite("sh", "-c", script, env={**env, "TERMITE_LOCAL": "never"})
    assert (done.code, done.stdout, tree.jobs()) == (ExitCode.NOWHERE, b"", jobs), done


def fallbacks(tree: Tree) -> int:
    return int(tree.status()["fallbacks"].get(UNSEEN, 0))


@pytest.mark.parametrize("directory", ["bin", ".toolenv/shims"])
@pytest.mark.parametrize(
    "line", ["xxd a; echo $?", "exec xxd a", "env xxd a", "echo $(xxd a)", "cat $(command -v xxd)"]
)
def test_a_program_that_jobs_may_not_see_is_not_replaced_by_the_systems(
    tree: Tree, home: Home, directory: str, line: str
) -> None:
    home.write(f"{directory}/xxd", CHOSEN)
    env, before = home.env(directory), fallbacks(tree)
    plain = tree.plain("sh", "-c", line, env=env)
    assert b"chosen" in plain.stdout, plain
    assert tree.termite("sh", "-c", line, env=env) == plain
    assert fallbacks(tree) == before + 1
    tied = tree.status()["tied"].get(UNSEEN, 0)
    assert tree.termite("sh", "-c", line, env=env) == plain
    assert (fallbacks(tree), tree.status()["tied"].get(UNSEEN, 0)) == (before + 1, tied + 1), "it was not tried again"


def test_a_look_at_such_a_program_needs_no_run_here(tree: Tree, home: Home) -> None:
    home.write("bin/xxd", CHOSEN)
    home.write("bin/notes", "not a program", 0o644)
    line = "command -v xxd; cd $(dirname $(command -v xxd)); test -x xxd && echo yes; ls"
    jobs = tree.jobs()
    done = tree.termite("sh", "-c", line, env=home.env("bin"))
    assert done.stdout.splitlines()[1:] == [b"yes", b"xxd"], done
    assert done.stdout.startswith(bytes(home.top)), done
    assert tree.jobs() == jobs + 1


@pytest.mark.parametrize("kind", ["private file", "symlink", "interpreter", "interpreter by a link"])
def test_a_program_in_a_public_directory_may_lead_to_a_private_file(tree: Tree, home: Home, kind: str) -> None:
    public = tree.where.base / f"public-{uuid.uuid4().hex[:8]}"
    public.mkdir()
    program = public / "xxd"
    hidden = home.write("hidden/run", CHOSEN)
    if kind == "private file":
        program.write_text(CHOSEN)
        program.chmod(0o700)
    elif kind == "symlink":
        program.symlink_to(hidden)
    else:
        inner = home.link("hidden/inner", "/bin/sh") if kind == "interpreter" else home.link("x/sh", "/bin/sh")
        program.write_text(f"#!{inner}\necho chosen by $0\n")
        program.chmod(0o755)
    tree.own(program)
    env, before = {**home.env(), "PATH": f"{public}:{PATH}"}, fallbacks(tree)
    plain = tree.plain("sh", "-c", "xxd a", env=env)
    assert plain.stdout.startswith(b"chosen"), plain
    assert tree.termite("sh", "-c", "xxd a", env=env) == plain
    assert fallbacks(tree) == before + 1


def test_other_programs_of_such_a_directory_stay_usable(tree: Tree, home: Home) -> None:
    """A link to a program of the system leads to what jobs see."""
    home.link("bin/mycat", "/bin/cat")
    home.write("bin/unused", CHOSEN)
    tree.write("f", "text")
    jobs, before = tree.jobs(), fallbacks(tree)
    assert tree.termite("sh", "-c", "mycat f; sort f", env=home.env("bin")).stdout == b"texttext\n"
    assert (tree.jobs(), fallbacks(tree)) == (jobs + 1, before)


def test_it_fails_if_it_must_not_run_here(tree: Tree, home: Home) -> None:
    home.write("bin/xxd", CHOSEN)
    for _ in range(2):
        done = tree.termite("sh", "-c", "xxd", env={**home.env("bin"), "TERMITE_LOCAL": "never"})
        assert (done.code, done.stdout) == (ExitCode.NOWHERE, b""), done
        assert b"bin/xxd" in done.stderr


def test_a_build_names_the_program_and_the_flag(tree: Tree, home: Home) -> None:
    home.write("bin/xxd", CHOSEN)
    tree.write("Makefile", "all: a b\na: ; @xxd >$@\nb: ; @xxd 1 >$@\n")
    done = tree.make("-s", env=home.env("bin"))
    assert done.code == 0, done
    line = "termite: 2 commands ran on this machine, because jobs may not see {}/bin/xxd (termite-master -export DIR)\n"
    assert done.stderr == line.format(home.top).encode()
    assert (tree.path / "b").read_bytes() == b"chosen 1\n"


def test_a_program_that_comes_later_is_found(tree: Tree, home: Home) -> None:
    home.mkdir("bin")
    tree.write("f", "text\n")
    assert tree.termite("sh", "-c", "sort f", env=home.env("bin")).stdout == b"text\n"
    home.write("bin/sort", CHOSEN)
    tree.ctl("refresh")
    assert tree.termite("sh", "-c", "sort f", env=home.env("bin")).stdout == b"chosen f\n"


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed (apt-get install git)")
def test_settings_in_a_private_home_are_those_of_a_plain_build(tree: Tree, home: Home) -> None:
    home.write(".gitconfig", "[user]\nname = me\n", 0o600)
    home.link(".config/git/config", home.write("dotfiles/git", "[user]\nemail = a@b\n", 0o600))
    home.write("letters", "secret", 0o600)
    env, before, jobs = home.env(), fallbacks(tree), tree.jobs()
    looked = tree.termite("sh", "-c", f"cd {veiled(home.top)}; find .gitconfig -size 17c", env=env)
    assert looked.stdout.split() == [b".gitconfig"], looked
    assert (tree.jobs(), fallbacks(tree)) == (jobs + 1, before), "nothing was opened"
    for line in ("git config user.name", "git config user.email", "git config user.name"):
        plain = tree.plain("sh", "-c", line, env=env)
        assert plain.code == 0, plain
        assert tree.termite("sh", "-c", line, env=env) == plain
    assert fallbacks(tree) == before + 2
    assert tree.jobs() == jobs + 1


# -- names of the home itself -----------------------------------------------------------------------------------------


def test_what_lists_or_searches_the_home_runs_here(tree: Tree, home: Home) -> None:
    """Jobs see parts of the home, so that naming it must not find these parts only."""
    home.write(".gitconfig", "", 0o600)
    for name in ("a.t", "b.t", "c.t", "sub/d.t"):
        home.write(name, f"{name}\n", 0o600)
    tree.mkdir("sub")
    (tree.path / "way").symlink_to(home.top / "sub")
    tree.own(tree.path / "way")
    lines = [
        "ls ~; find $HOME -name '*.t' | sort",
        "cd; ls",
        "cat $HOME/a*",
        "cp ~/sub/*.t .; ls *.t",
        'ls "$HOME"/*.t',
    ]
    lines += ["for f in $HOME/*.t; do cat $f; done", "echo a.t | xargs -I{} cat $HOME/{}"]
    lines += ["echo '#include <d.t>' >x.c; cc -E -P -Iway x.c; rm x.c", "cd sub; cat ../way/d.t"]
    expected = {line: tree.plain("sh", "-c", line, env=home.env()) for line in lines}
    # From here on the files are removed.
    for line, left in (
        ("rm -f $HOME/a*.t; ls $HOME", b"b.t\nc.t\nsub\n"),
        ("find $HOME -name 'c.t' -delete; ls $HOME", b"b.t\nsub\n"),
        ("cd; rm *.t; ls", b"sub\n"),
    ):
        expected[line] = Outcome(0, left, b"")
    jobs, tied = tree.jobs(), names_private(tree)
    for number, (line, outcome) in enumerate(expected.items(), 1):
        assert tree.termite("sh", "-c", line, env=home.env()) == outcome, line
        assert outcome.code == 0 and outcome.stdout, line
        assert names_private(tree) == tied + number, line
    assert tree.jobs() == jobs
    assert sorted(path.name for path in home.top.iterdir()) == [".gitconfig", "sub"]


def names_private(tree: Tree) -> int:
    return int(tree.status()["tied"].get(Reason.NAMES_PRIVATE, 0))


def test_a_command_that_only_gives_path_or_home_what_they_have_runs_on_a_worker(tree: Tree, home: Home) -> None:
    home.write("bin/xxd", CHOSEN)
    env, jobs = home.env("bin"), tree.jobs()
    assert tree.termite("sh", "-c", "HOME=$HOME PATH=$HOME/bin:$PATH env >/dev/null", env=env).code == 0
    assert tree.jobs() == jobs + 1


def test_a_fifo_outside_the_tree_has_its_other_end_here(tree: Tree, home: Home) -> None:
    fifo = tree.where.base / f"fifo-{uuid.uuid4().hex[:8]}"
    os.mkfifo(fifo)
    fifo.chmod(0o666)
    tree.own(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert tree.termite("sh", "-c", f"echo hi >{fifo}", env=home.env(), timeout_s=20).code == 0
        assert os.read(reader, 9) == b"hi\n"
    finally:
        os.close(reader)


# -- what other variables name ----------------------------------------------------------------------------------------


def test_other_search_paths_lead_where_they_do_at_home(tree: Tree, home: Home) -> None:
    """A job would take the next file of the name, which is the system's, without a word."""
    header = "int home;\n"
    for name, text in (
        ("inc/wchar.h", header),
        ("py/colorsys.py", "x = 1"),
        ("pl/Text/Wrap.pm", "package Text::Wrap; 1;"),
    ):
        home.write(name, text, 0o600)
    home.write("inc/.netrc", "secret", 0o600)
    tree.write("a.c", "#include <wchar.h>\n")
    cases = {
        "CPATH": ("inc", "cc -E -P a.c"),
        "C_INCLUDE_PATH": ("inc:/usr/include", "cc -E -P a.c"),
        "PYTHONPATH": ("py", "python3 -B -c 'import colorsys; print(colorsys.__file__)'"),
        "PERL5LIB": ("pl", "perl -MText::Wrap -e 'print $INC{qq(Text/Wrap.pm)}'"),
    }
    jobs = tree.jobs()
    for variable, (place, line) in cases.items():
        env = {**home.env(), variable: f"{home.top}/{place}"}
        plain = tree.plain("sh", "-c", line, env=env)
        assert plain.code == 0 and (header.encode() in plain.stdout or bytes(home.top) in plain.stdout), plain
        assert tree.termite("sh", "-c", line, env=env) == plain, variable
    assert tree.jobs() == jobs + len(cases)
    assert_no_worker_gets(tree, f"cat {veiled(home.top)}/inc/.netrc", home.env())


def test_a_search_path_that_is_the_whole_home_makes_commands_run_here(tree: Tree, home: Home) -> None:
    home.write("colorsys.py", "x = 1", 0o600)
    env, jobs, tied = {**home.env(), "PYTHONPATH": str(home.top)}, tree.jobs(), names_private(tree)
    line = "python3 -B -c 'import colorsys; print(colorsys.__file__)'"
    for _ in range(2):
        assert tree.termite("sh", "-c", line, env=env) == tree.plain("sh", "-c", line, env=env)
    assert (tree.jobs(), names_private(tree)) == (jobs, tied + 2)
    assert_no_worker_gets(tree, f"cat {veiled(home.top)}/colorsys.py", env)


def test_a_private_file_that_a_variable_names_is_read_here(tree: Tree, home: Home) -> None:
    home.write("set", "FOO=home", 0o600)
    env, before = {**home.env(), "BASH_ENV": str(home.top / "set")}, fallbacks(tree)
    assert tree.termite("bash", "-c", "echo $FOO", env=env).stdout == b"home\n"
    assert fallbacks(tree) == before + 1


def test_temporary_files_go_to_any_directory_that_is_there(tree: Tree, home: Home) -> None:
    home.mkdir("tmp")
    home.write("tmp/theirs", "secret", 0o644)
    way = tree.path / "way"
    way.symlink_to(home.top / "tmp")
    tree.own(way)
    jobs = tree.jobs()
    spellings = [f"{home.top}/tmp", str(way), f"{home.top}/./tmp/"]
    for place in spellings:
        env = {**home.env(), "TMPDIR": place}
        done = tree.termite("sh", "-c", "f=`mktemp` && echo x >$f && cat $f && rm $f", env=env)
        assert done == Outcome(0, b"x\n", b""), (place, done)
    assert tree.jobs() == jobs + len(spellings)
    looked = tree.termite("sh", "-c", f"ls {veiled(home.top)}/tmp; cat {veiled(home.top)}/tmp/theirs", env=env)
    assert (looked.code, looked.stdout) == (1, b""), "nobody has asked to show what is there"
    tied = names_private(tree)
    assert tree.termite("sh", "-c", "cat $TMPDIR/th*", env=env).stdout == b"secret"
    assert names_private(tree) == tied + 1


# -- symlinks ---------------------------------------------------------------------------------------------------------


def test_a_symlink_of_the_tree_leads_to_its_private_file(tree: Tree, home: Home) -> None:
    tree.mkdir("tools")
    tree.write("read", "cat data")
    tree.write("look", "test -e gone || echo gone; test -e data && echo there")
    links = {"tools/xxd": home.write("store/xxd", CHOSEN), "data": home.write("store/data", "mine\n", 0o600)}
    links["gone"] = home.top / "store/nothing"
    for name, target in links.items():
        (tree.path / name).symlink_to(target)
        tree.own(tree.path / name)
    env, before, jobs = {**home.env(), "PATH": f"tools:{PATH}"}, fallbacks(tree), tree.jobs()
    for line in ("xxd a", "sh ./read", "sh ./look"):
        assert tree.termite("sh", "-c", line, env=env) == tree.plain("sh", "-c", line, env=env)
    assert fallbacks(tree) == before + 2
    assert tree.jobs() == jobs + 1


# -- tools that are shown ---------------------------------------------------------------------------------------------


def base_python(home: Home, place: str) -> Path:
    """Make a Python below `place` that reads its library from there, as managers install it."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    interpreter = Path("/usr/bin") / version
    library = Path("/usr/lib") / version
    if not (interpreter.exists() and library.exists()):
        pytest.skip(f"{interpreter} is not the system's")
    top = home.mkdir(place)
    shutil.copyfile(interpreter, home.mkdir(f"{place}/bin") / version)
    (top / "bin" / version).chmod(0o755)
    home.mkdir(f"{place}/lib")
    shutil.copytree(
        library, top / "lib" / version, symlinks=True, ignore=shutil.ignore_patterns("test", "idlelib", "*.pyc")
    )
    home.link(f"{place}/bin/python3", version)
    for path in top.rglob("*"):
        tree_own(home, path)
    return top


def tree_own(home: Home, path: Path) -> None:
    home.tree.own(path)


SAY = "import sys, os, json; print(sys.prefix, sys.base_prefix, os.__file__, json.__file__, sys.executable)"


@pytest.mark.parametrize("chain", ["direct", "by links", "environment of an environment"])
def test_the_base_of_a_virtual_environment_is_shown(tree: Tree, home: Home, chain: str) -> None:
    home.write(".ssh/id_rsa", "secret", 0o600)
    base = base_python(home, ".local/share/uv/python/cpython-3.1-linux")
    if chain == "by links":
        home.link(".local/share/uv/python/cpython-3", base.name)
        base = base.with_name("cpython-3")
    venv = tree.path / ".venv"
    _environment(tree, venv, base / "bin")
    if chain == "environment of an environment":
        outer, venv = venv, tree.path / "second"
        _environment(tree, venv, outer / "bin")
    env = {**home.env(), "PATH": f"{venv}/bin:{PATH}"}
    plain = tree.plain("sh", "-c", f'python3 -c "{SAY}"', env=env)
    # Python itself does not look further than the first `home`.
    assert (str(base.parent).encode() in plain.stdout) == (chain != "environment of an environment"), plain
    jobs = tree.jobs()
    assert tree.termite("sh", "-c", f'python3 -c "{SAY}"', env=env) == plain
    assert tree.jobs() == jobs + 1
    for look in ("ls -a", "ls -a .local", "cat .ssh/id_rsa"):
        assert_no_worker_gets(tree, f"cd {veiled(home.top)}; {look}", env)


def _environment(tree: Tree, venv: Path, programs: Path) -> None:
    name = str(venv.relative_to(tree.path))
    tree.write(f"{name}/pyvenv.cfg", f"home = {programs}\ninclude-system-site-packages = false\n")
    tree.mkdir(f"{name}/bin")
    (venv / "bin" / "python3").symlink_to(programs / "python3")
    tree.own(venv / "bin" / "python3")


# The directory in PATH, and that of the tool; the same if the tool itself is found.
MANAGERS = {
    "pyenv": (".pyenv/shims", ".pyenv/versions/3/bin"),
    "rbenv": (".rbenv/shims", ".rbenv/versions/3/bin"),
    "nvm": (".nvm/versions/node/v20/bin", ".nvm/versions/node/v20/bin"),
    "asdf": (".asdf/shims", ".asdf/installs/x/1/bin"),
    "opam": (".opam/default/bin", ".opam/default/bin"),
    "sdkman": (".sdkman/candidates/java/current/bin", ".sdkman/candidates/java/current/bin"),
    "ghcup": (".ghcup/bin", ".ghcup/ghc/9/bin"),
    "cargo": (".cargo/bin", ".cargo/bin"),
    "rustup": (".cargo/bin", ".rustup/toolchains/stable/bin"),
    "conda": ("miniconda3/bin", "miniconda3/envs/x/bin"),
    "conda environment": ("miniconda3/envs/x/bin", "miniconda3/envs/x/bin"),
}


@pytest.mark.parametrize("manager", MANAGERS)
def test_the_tools_of_a_manager_are_shown_and_credentials_beside_them_are_not(
    tree: Tree, home: Home, manager: str
) -> None:
    shims, tools = MANAGERS[manager]
    real = home.write(f"{tools}/xxd" if shims == tools else f"{tools}/real", CHOSEN)
    if shims != tools:
        home.write(f"{shims}/xxd", f'#!/bin/sh\nexec {real} "$@"\n')
    if manager.startswith("conda"):
        home.mkdir(f"{shims}/../conda-meta")
    top = tools.partition("/")[0]
    secrets = [f"{tools}/../etc/npmrc", f"{top}/credentials", f"{top}/credentials.toml", ".ssh/id_rsa"]
    secrets += [f"{tools}/.netrc", f"{shims}/.ssh/key", f"{shims}/../.condarc"]
    for name in secrets:
        home.write(name, "secret", 0o600)
    env, jobs, before = home.env(shims), tree.jobs(), fallbacks(tree)
    assert tree.termite("sh", "-c", "xxd 1", env=env).stdout == b"chosen 1\n"
    assert (tree.jobs(), fallbacks(tree)) == (jobs + 1, before)
    for name in secrets:
        assert_no_worker_gets(tree, f"cat {veiled(home.top)}/{name}", env)


@pytest.mark.parametrize("variable", ["PYENV_ROOT", "NVM_DIR", "CARGO_HOME", "OPAMROOT", "VIRTUAL_ENV"])
def test_no_variable_shows_a_whole_home(tree: Tree, home: Home, variable: str) -> None:
    home.write("pyvenv.cfg", "home = /usr/bin\n", 0o600)
    home.write("bin/tool", CHOSEN)
    home.write(".ssh/id_rsa", "secret", 0o600)
    home.write("letters/to-her", "secret", 0o600)
    env = {**home.env("bin"), variable: str(home.top)}
    for look in ("cat .ssh/id_rsa", "cat letters/to-her", "ls -a", "ls -a .ssh"):
        assert_no_worker_gets(tree, f"cd {veiled(home.top)}; {look}", env)


@pytest.mark.needs_root("gives a directory to another user")
def test_a_directory_that_the_user_cannot_enter_is_not_his_either(tree: Tree, home: Home) -> None:
    """After su the search path may still begin with another user's directories."""
    home.write("bin/sort", CHOSEN)
    if tree.where.uid == 0:
        pytest.skip("root enters every directory")
    for path in (home.top, home.top / "bin", home.top / "bin" / "sort"):
        shutil.chown(path, 0, 0)
    tree.write("f", "text\n")
    plain = tree.plain("sh", "-c", "sort f", env=home.env("bin"))
    assert plain.stdout == b"text\n", plain
    jobs = tree.jobs()
    assert tree.termite("sh", "-c", "sort f", env=home.env("bin")) == plain
    assert tree.jobs() == jobs + 1


# Each script meets something private that its command does not name. `$H` is only for the set-up.
MET_INSIDE = {
    "a library by RUNPATH": ("./prog", 0),
    "a library by RPATH of a library": ("./outer", 0),
    "a library by $ORIGIN": ("./origin", 0),
    "the loader of a program": ("./loaded", 0),
    "an interpreter": ("./script", 0),
    "an interpreter by a link": ("./linked-script", 1),
    "a file": ("sh ./reads", 0),
    "a directory that is listed": ("sh ./lists", 0),
    "a test of a file": ("sh ./tests", 0),
    "a .pth file": ("python3 -B -c 'import site; site.addsitedir(\"site\"); import mine; print(mine.X)'", 0),
    "the other half of a git worktree": ("git -C worktree log --format=%s", 0),
    "objects of another repository": ("git -C borrower log --format=%s", 0),
    "a symlink of the home": ("sh ./follows", 0),
    "nothing": ("sh ./finds-nothing", 1),
    "a cache": ("sh ./uses-cache", 1),
    "a file that comes later": ("sh ./waits", 0),
}


@pytest.fixture(scope="module")
def met(shared: Tree) -> Home:
    """Return a home with a library, an interpreter and a file, and a tree that uses them."""
    tree = shared.subtree("met")
    home = Home(tree)
    home.mkdir("lib")
    home.write("lib/mine.c", 'const char *zlibVersion(void) { return "of the home"; }\n')
    home.write("data/file", "private\n", 0o644)
    home.link("data/link", "file")
    home.write(".cache/tool/entry", "cached\n")
    home.link("bin/linked", "/bin/sh")
    shutil.copy("/bin/sh", home.top / "bin/sh")
    shutil.copy("/lib64/ld-linux-x86-64.so.2", home.mkdir("lib") / "ld.so")
    for name in ("lib/ld.so", "bin/sh"):
        tree.own(home.top / name)
    tree.write(
        "main.c", "#include <stdio.h>\nconst char *zlibVersion(void);\nint main(void) { puts(zlibVersion()); }\n"
    )
    tree.write("far.c", "const char *zlibVersion(void);\nconst char *far(void) { return zlibVersion(); }\n")
    tree.write("outer.c", "#include <stdio.h>\nconst char *far(void);\nint main(void) { puts(far()); }\n")
    top = home.top
    origin = os.path.relpath(top, tree.path)
    build = f"""set -e
gcc -shared -fPIC -Wl,-soname,libz.so.1 -o {top}/lib/libz.so.1 {top}/lib/mine.c
gcc main.c -o prog {top}/lib/libz.so.1 -Wl,-rpath,{top}/lib
gcc -shared -fPIC far.c -o libfar.so {top}/lib/libz.so.1 -Wl,--disable-new-dtags,-rpath,{top}/lib
gcc outer.c -o outer libfar.so -Wl,-rpath,'$ORIGIN',-rpath-link,{top}/lib
gcc main.c -o origin {top}/lib/libz.so.1 -Wl,-rpath,'$ORIGIN/{origin}/lib'
gcc outer.c libfar.so -o loaded -Wl,-rpath,'$ORIGIN',-rpath-link,{top}/lib -Wl,--dynamic-linker={top}/lib/ld.so
"""
    assert tree.plain("sh", "-c", build).code == 0
    for name, text in {
        "script": f"#!{top}/bin/sh\necho by the interpreter of the home\n",
        "linked-script": f"#!{top}/bin/linked\necho by a link\n",
        "reads": f"cat {top}/data/file",
        "lists": f"ls {top}/data",
        "tests": f"test -e {top}/data/file && echo there",
        "follows": f"cat {top}/data/link",
        "finds-nothing": f"test -e {top}/data/none || test -e {top}/none/file || echo nothing",
        "waits": f"test -e {top}/data/later; echo $?",
        "uses-cache": f"test -e {top}/.cache/tool/entry || true; echo done",
    }.items():
        path = tree.write(name, text)
        path.chmod(0o755)
    home.write("py/mine.py", "X = 'of the home'\n", 0o644)
    tree.write("site/mine.pth", f"{top}/py\n")
    commit = "-c user.name=a -c user.email=a@b commit -q --allow-empty -m private"
    repositories = f"""set -e
git init -q {top}/main && git -C {top}/main {commit}
git -C {top}/main worktree add -q --detach {tree.path}/worktree && git clone -q --shared {top}/main borrower
"""
    assert not shutil.which("git") or tree.plain("sh", "-c", repositories).code == 0
    return home


@pytest.mark.parametrize("what", MET_INSIDE)
def test_what_a_command_meets_in_a_private_place_without_naming_it_is_as_plain(met: Home, what: str) -> None:
    tree, (line, jobs) = met.tree, MET_INSIDE[what]
    if not shutil.which(line.split()[0]) and not line.startswith("./"):
        pytest.skip("git is not installed (apt-get install git)")
    plain = tree.plain("sh", "-c", line, env=met.env())
    assert plain.code == 0, plain
    if what.endswith("later"):
        assert tree.termite("sh", "-c", line, env=met.env()) == plain
        met.write("data/later", "", 0o644)
        plain = tree.plain("sh", "-c", line, env=met.env())
    before, ran = fallbacks(tree), tree.jobs()
    assert tree.termite("sh", "-c", line, env=met.env()) == plain
    assert (fallbacks(tree) - before, tree.jobs() - ran) == (1 - jobs, jobs)


def test_what_has_changed_in_private_places_since_the_last_command_counts(met: Home) -> None:
    """No change of them is sent to workers, which answer many commands from what they know."""
    tree, sdk, tools = met.tree, met.top / "sdk", met.tree.where.base / f"open-{uuid.uuid4().hex[:8]}"
    tools.mkdir(mode=0o755)
    tree.own(tools)
    for version in ("1", "2"):
        tree.mkdir(f"sdk-{version}")
        tree.write(f"sdk-{version}/version", f"{version}\n")
    tree.write("by-link", f"cat {sdk}/version")
    tree.write("by-absence", f"test -e {tools}/settings && echo settings || echo none")

    def run() -> tuple[bytes, bytes]:
        outcomes = [tree.termite("sh", f"./{script}", env=met.env()) for script in ("by-link", "by-absence")]
        assert outcomes == [tree.plain("sh", f"./{script}", env=met.env()) for script in ("by-link", "by-absence")]
        return outcomes[0].stdout, outcomes[1].stdout

    before, ran = fallbacks(tree), tree.jobs()
    met.link("sdk", tree.path / "sdk-1")
    assert run() == (b"1\n", b"none\n")
    sdk.unlink()
    met.link("sdk", tree.path / "sdk-2")
    assert run() == (b"2\n", b"none\n")
    assert (fallbacks(tree) - before, tree.jobs() - ran) == (0, 4)
    settings = tools / "settings"
    settings.touch(mode=0o600)
    tree.own(settings)
    assert run() == (b"2\n", b"settings\n")
    assert (fallbacks(tree) - before, tree.jobs() - ran) == (1, 5)
