"""Answer one request of termite-ctl on a host: the program that it runs there over ssh.

Standard input has a line of JSON, the request, and then the bytes of the secret and of the bundle,
as many as the request says. Each answer is a line that begins with MARK, with an object of JSON:
{"note"} while the work goes on, and at the end {"error", "hint"} or {"done"}. An error that the far
side has foreseen has "refused".
"""

import json
import os
import signal
import subprocess
import sys
from typing import BinaryIO, NoReturn

from termite.cli.ssh_hosts.far.bundle_files import examine, install, tidy
from termite.cli.ssh_hosts.far.far_worker import claim, clean, last_lines, look, start, stop
from termite.cli.ssh_hosts.far.place import FarMessage, FarRefusal, WorkerPlace, locked, send_line


def answer(request: FarMessage, stream: BinaryIO) -> FarMessage:
    """Do what the request asks, and return the answer. Raise FarRefusal."""
    place = WorkerPlace()
    secret = stream.read(request.get("secret_bytes", 0))
    match request["action"]:
        case "look":
            return look(place)
        case "log":
            return last_lines(place)
    with locked(place, request.get("patience_s", 0.0)):
        match request["action"]:
            case "claim":
                return claim(place, request)
            case "install":
                return install(place, request["digest"], request["bundle_bytes"], stream)
            case "examine":
                return examine(place, request["digest"])
            case "tidy":
                return tidy(place, request["digest"])
            case "start":
                return start(place, request, secret)
            case "stop":
                return stop(place, request["wait_s"])
            case "clean":
                return clean(place, request["wait_s"])
    raise FarRefusal(f"there is no action {request['action']}")


def main() -> NoReturn:
    """Answer the one request of standard input, and end."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.umask(0o022)
    stream = sys.stdin.buffer
    try:
        send_line({"done": answer(json.loads(stream.readline()), stream)})
    except FarRefusal as refusal:
        send_line({"error": refusal.text, "hint": refusal.hint, "refused": True})
    except (OSError, subprocess.SubprocessError) as error:
        send_line({"error": str(error), "hint": ""})
    sys.exit(0)
