"""Read the live stream of a master beside a reader that is stopped, and print what it has shown.

    python live_reader.py SOCKET COUNT

`COUNT` is the number of builds whose end is awaited. The last line is a JSON object.
"""

import json
import socket
import sys
from pathlib import Path

import trio

from termite.engine.history.live_stream import open_live_stream
from termite.engine.history.logic.job_record import JobRecord, as_object
from termite.engine.history.logic.live_events import BuildEnded, JobHome, JobSent, Snapshot
from termite.engine.history.logic.live_state import LiveState
from termite.engine.wire.protocol import launcher_frames


async def read(path: Path, builds: int) -> None:
    state, kinds, home, running = LiveState(), set[str](), list[JobRecord](), 0
    async with open_live_stream(path) as stream:
        async for event in stream:
            state.apply(event)
            kinds.add(type(event).__name__)
            if isinstance(event, Snapshot):
                print("reads", flush=True)
            if isinstance(event, JobSent):
                running = max(running, len(state.jobs))
            if isinstance(event, JobHome):
                home.append(event.job)
            if isinstance(event, BuildEnded):
                builds -= 1
            if not builds:
                break
    shown = {
        "kinds": sorted(kinds),
        "home": [as_object(job) for job in home],
        "left": len(state.jobs),
        "running": running,
        "workers": [as_object(worker) for worker in state.workers.values()],
        "missed": state.missed,
    }
    print(json.dumps(shown), flush=True)


if __name__ == "__main__":
    with socket.socket(socket.AF_UNIX) as stopped:
        stopped.connect(sys.argv[1])
        stopped.sendall(launcher_frames.frame(launcher_frames.CONTROL, b'{"command": "watch"}'))
        trio.run(read, Path(sys.argv[1]), int(sys.argv[2]))
