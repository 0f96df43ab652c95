"""A notice for the user of a launcher is one line without control characters."""

import socket

from termite.engine.launch.connection import Launcher
from termite.engine.wire.protocol import launcher_frames


async def test_a_notice_is_one_line_whatever_names_are_in_it() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        await Launcher(ours).notice("termite: dropped a\n\x1b[2Jb\udce9")
        frames = launcher_frames.FrameBuffer().feed(theirs.recv(1000))
        assert frames == [(launcher_frames.NOTICE, b"termite: dropped a\\x0a\\x1b[2Jb\\xe9\n")]
