"""The commands that the documents for users show work as they are shown, and print that.

Each document begins in a home of its own, with a small project in `~/your-project`. All names of
machines lead to one machine, whose network is its own, so that the default ports are free.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.conftest import MakePlace, needs_root
from tests.e2e.leftovers import assert_nothing_left
from tests.e2e.places import CHECKOUT, Place, held
from tests.e2e.sshd import SSHD, SshHost, sshd
from tests.e2e.terminals import on_terminal
from tests.e2e.test_hosts import ip
from tests.e2e.waiting import wait_until
from tests.shown_commands import DOCUMENTS, How, ShownCommands, shown_commands

STOP_LIMIT_S = 10.0
READY = re.compile(r"^termite-\w+: (listens|serves) ", re.MULTILINE)  # what a daemon prints
WITH_COMMANDS = [document for document in DOCUMENTS if any(shown_commands(document.read_text()))]
# All names of machines in the documents. The place has the last one as its own name, too.
HOSTS = ("localhost", "buildhost", "other")
PROJECT = {
    "hello.c": "extern const char *name(void);\nint puts(const char *);\nint main(void) { return puts(name()) < 0; }\n",
    "name.c": 'const char *name(void) { return "world"; }\n',
    "Makefile": "hello: hello.o name.o\n\tgcc -o hello hello.o name.o\n%.o: %.c\n\tgcc -O2 -c $<\n",
    "CMakeLists.txt": "cmake_minimum_required(VERSION 3.20)\nproject(hello C)\nadd_executable(hello hello.c name.c)\n",
}


# What happens before a block with such a mark. The two commands of the first build run at the same
# time: one of them fails, and ends only after the other one has made what it lacks.
PREPARATIONS = {
    "a build with a missing dependency": r"""
echo '#include "gen.h"' >x.c
cat >Makefile <<'EOF'
all: x.o gen.h
x.o:
	gcc -c x.c 2>/dev/null || { sleep 2.5; exit 1; }
gen.h:
	sleep 1.5; echo 'int x;' >gen.h
EOF
TERMITE_TRACE=exact TERMITE_SHORT=0 termite-make -j2
""",
    "twelve commands": """
termite-ctl start
for number in 1 2 3 4 5 6 7 8 9 10 11 12; do TERMITE_LOCAL=never termite echo $number; done
""",
}


@pytest.fixture(scope="module")
def machine(make_place: MakePlace) -> Iterator[Place]:
    """Yield a place of an ordinary user, in a network in which all names lead to it."""
    with make_place("ordinary", network=True) as where:
        (hosts := where.base / "hosts").write_text(f"127.0.0.1 {' '.join(HOSTS)}\n")
        subprocess.run([*where.enter, "--", "mount", "--bind", str(hosts), "/etc/hosts"], check=True)
        ip(where.holder, "link set lo up")
        named = ["unshare", "--uts", "sh", "-c", f"hostname {HOSTS[-1]}; echo ready; read -r _"]
        with held([*where.enter, "--", *named]) as pid:
            yield replace(where, enter=(*where.enter, f"--uts=/proc/{pid}/ns/uts"))


@pytest.fixture(scope="module")
def buildhost(machine: Place) -> Iterator[SshHost]:
    """Yield the machine with a running sshd, which trusts the user and is known to him."""
    if not Path(SSHD).exists():
        pytest.skip("sshd is not installed: sh tools/setup.sh tests")
    with sshd(machine, "127.0.0.1", 22) as host:
        host.trusts(machine)
        for name in HOSTS:
            host.is_known_to(machine, name)
        yield host


class Reader:
    """A reader of one document, who types its commands in a home of his own."""

    def __init__(self, where: Place, home: Path, stack: ExitStack) -> None:
        self._where = where
        self._home = home
        self._stack = stack
        self._directory = home
        self._env = {"HOME": str(home), "PATH": f"{CHECKOUT}/bin:{where.env['PATH']}"}
        if (secret := home / "secret.txt").exists():
            self._env["FARM_SECRET"] = secret.read_text().rstrip("\n")  # a CI system has it

    def type(self, commands: ShownCommands) -> None:
        """Run the commands, and check how they end and what they print.

        With a preparation they run in a directory of their own, which has a master of its own.
        """
        if not commands.mark.after:
            self._type(commands)
            return
        before, self._directory = self._directory, self._home / "prepared"
        self._directory.mkdir()
        shutil.chown(self._directory, self._where.uid, self._where.uid)
        code, printed = self._run(PREPARATIONS[commands.mark.after])
        assert code == 0, printed
        self._type(commands)
        assert self._run("termite-ctl shutdown")[0] == 0
        self._directory = before

    def _type(self, commands: ShownCommands) -> None:
        match commands.how:
            case How.TO_ITS_END:
                code, printed = self._run(commands.script)
            case How.CTRL_C:
                with self._started(commands, signal.SIGINT) as (process, log):
                    wait_until(lambda: b"\n" in log.read_bytes(), commands.script, log.read_text)
                code, printed = max(process.returncode, 0), self._general(log.read_bytes())  # the shell dies of it
            case How.DAEMON:
                _, log = self._stack.enter_context(self._started(commands, signal.SIGTERM))
                wait_until(lambda: bool(READY.search(log.read_text())), commands.script, log.read_text)
                code, printed = 0, self._general(log.read_bytes())
            case How.ON_TERMINAL:
                code, printed = self._run_on_terminal(commands)
            case How.NOT:
                return
        assert code in commands.mark.codes, f"line {commands.line}: {commands.script}ends with {code}:\n{printed}"
        missing = commands.missing_from(printed)
        assert missing == [], f"line {commands.line}: {commands.script}prints:\n{printed}"

    def _run(self, script: str) -> tuple[int, str]:
        """Run a script, and stay in the directory to which it goes."""
        remembered = self._home / "directory"
        argv = ["sh", "-e", "-c", f"trap 'pwd >{remembered}' EXIT\n{script}"]
        done = self._where.run(argv, self._directory, env=self._env, merge=True)
        self._directory = Path(remembered.read_text().rstrip("\n"))
        return done.code, self._general(done.stdout)

    def _run_on_terminal(self, commands: ShownCommands) -> tuple[int, str]:
        """Run a script on a terminal, and type `exit` at each prompt."""
        argv = ["sh", "-e", "-c", commands.script]
        with on_terminal(self._where, argv, self._directory, env=self._env) as terminal:
            printed = b""
            for _ in range(commands.mark.prompts):
                printed += terminal.read_until(b"$ ")
                terminal.type(b"exit\r")
            code, rest = terminal.finish()
        return code, self._general(printed + rest)

    def leave(self) -> None:
        """End the masters that front ends have started in this home."""
        for tree in (path.parent for path in self._home.glob("*/.termite-socket")):
            self._where.run([f"{CHECKOUT}/bin/termite-ctl", "shutdown"], tree, env=self._env)

    def _general(self, printed: bytes) -> str:
        return printed.decode().replace(str(self._home), "/home/you")

    @contextmanager
    def _started(self, commands: ShownCommands, number: int) -> Iterator[tuple["subprocess.Popen[bytes]", Path]]:
        """Start the commands; at the end of the block, send a signal to all their processes."""
        log = self._home / f"line-{commands.line}.log"
        with log.open("wb") as output:
            argv = ["sh", "-e", "-c", commands.script]
            process = self._where.start(
                argv, self._directory, env=self._env, stdout=output.fileno(), stderr=subprocess.STDOUT
            )
        try:
            yield process, log
        finally:
            if process.poll() is None:
                os.killpg(process.pid, number)
            process.wait(STOP_LIMIT_S)


def new_home(where: Place, document: Path) -> Path:
    """Make a home with the project that the documents call `your-project`.

    It has the secret of the page on several machines, unless the document makes one.
    """
    home = where.base / f"{document.parent.name}-{document.stem}"
    (project := home / "your-project").mkdir(parents=True)
    for file, content in PROJECT.items():
        (project / file).write_text(content)
    for path in (home, *home.rglob("*")):
        shutil.chown(path, where.uid, where.uid)
    if "termite-ctl secret" not in document.read_text():
        assert where.run([f"{CHECKOUT}/bin/termite-ctl", "secret", str(home / "secret.txt")], home).code == 0
    return home


@needs_root
@pytest.mark.parametrize("document", WITH_COMMANDS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_the_commands_of_a_document_work_and_print_what_it_shows(
    document: Path, machine: Place, request: pytest.FixtureRequest
) -> None:
    if "ssh://" in document.read_text() or "scp " in document.read_text():
        request.getfixturevalue("buildhost")
    home = new_home(machine, document)
    with ExitStack() as stack:
        reader = Reader(machine, home, stack)
        stack.callback(reader.leave)
        for each in shown_commands(document.read_text()):
            reader.type(each)
    assert_nothing_left(machine, *(path for path in home.iterdir() if path.is_dir()))
