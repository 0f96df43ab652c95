"""A notice for the user of a launcher is one line without control characters."""

import socket

from termite.engine.launch.connection import Launcher
from termite.engine.wire.protocol import records


async def test_a_notice_is_one_line_whatever_names_are_in_it() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        await Launcher(ours).notice("termite: dropped a\n\x1b[2Jb\udce9")
        frames = records.FrameBuffer().feed(theirs.recv(1000))
        assert frames == [(records.NOTICE, b"termite: dropped a\\x0a\\x1b[2Jb\\xe9\n")]
