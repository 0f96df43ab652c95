"""Keys that are typed into a shell never come before the size of the window they were typed in."""

import os
import pty
import signal
import socket
import subprocess
import sys
from pathlib import Path

from termite.engine.wire.protocol import launcher_frames
from termite.engine.wire.protocol.fields import pack_fields, pack_numbers

# `poll` has found keys just before the signal of a new size came, so that its result lacks that.
PROGRAM = """
import os, signal, socket, sys
from termite.cli import shell_conversation
wait = shell_conversation.wait_until_readable
def late(fds):
    ready = wait(fds)
    if 0 in ready:
        os.kill(os.getpid(), signal.SIGWINCH)
    return [fd for fd in ready if fd == 0] or ready
shell_conversation.wait_until_readable = late
with shell_conversation.Screen(True) as screen:
    sys.exit(shell_conversation.Conversation(socket.socket(fileno=int(sys.argv[1])), screen).run())
"""


def test_a_size_that_came_before_a_key_is_sent_before_it() -> None:
    ours, theirs = socket.socketpair()
    end, inner = pty.openpty()
    command = [sys.executable, "-c", PROGRAM, str(theirs.fileno())]
    with (
        ours,
        subprocess.Popen(
            command, stdin=inner, stdout=inner, pass_fds=[theirs.fileno()], cwd=Path(__file__).parents[3]
        ) as process,
    ):
        os.close(inner)
        theirs.close()
        ours.settimeout(20)
        ours.sendall(launcher_frames.frame(launcher_frames.READ, pack_fields([("size", b"100")])))
        os.write(end, b"x\n")
        frames, seen = launcher_frames.FrameBuffer(), list[bytes]()
        while not seen or seen[-1] != launcher_frames.STDIN:
            received = ours.recv(4096)
            assert received
            seen += [kind for kind, _ in frames.feed(received)]
        ours.sendall(launcher_frames.frame(launcher_frames.EXIT, pack_numbers(code=0)))
        os.close(end)
        process.wait(20)
    assert seen == [launcher_frames.WINDOW, launcher_frames.STDIN]


GONE = """
import fcntl, os, sys, termios, time
from termite.cli import shell_conversation
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
with shell_conversation.Screen(True) as screen:
    screen.take_over()
    os.write(1, b"ready")
    shell_conversation.wait_until_readable([screen.woken])
    time.sleep(30)
"""


def test_a_terminal_that_is_closed_ends_the_shell_by_its_signal() -> None:
    end, inner = pty.openpty()
    command = [sys.executable, "-c", GONE]
    with subprocess.Popen(
        command,
        stdin=inner,
        stdout=inner,
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd=Path(__file__).parents[3],
    ) as process:
        os.close(inner)
        assert os.read(end, 100) == b"ready"
        os.close(end)
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (-signal.SIGHUP, b"")
