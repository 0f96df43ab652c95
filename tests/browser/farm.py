"""A farm within this machine, for pictures: a coordinator, two workers, and a master of a tree."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

COMMANDS = Path(__file__).resolve().parents[2] / ".venv" / "bin"
WORKERS = ("alpha", "beta")
LIMIT_S = 60


@contextlib.contextmanager
def farm(work: Path, tree: Path, slots: int) -> Iterator[None]:
    """Start everything, with so many slots on each worker, and end it again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    secret = work / "secret.txt"
    subprocess.run([COMMANDS / "termite-ctl", "secret", secret], check=True)
    flags = ["-secret", str(secret)]
    with contextlib.ExitStack() as stack:

        def start(name: str, *words: str) -> None:
            log = stack.enter_context((work / f"{name}.log").open("wb"))
            process = subprocess.Popen([COMMANDS / name, *flags, *words], cwd=tree, stdout=log, stderr=log)
            stack.callback(process.wait, LIMIT_S)
            stack.callback(process.terminate)

        start("termite-coordinator", "-port", address.partition(":")[2], "-listen", "127.0.0.1")
        for name in WORKERS:
            place = ["-name", name, "-port", "0", "-cachedir", str(work / name), "-jobs", str(slots)]
            start("termite-worker", "-coordinator", address, "-listen", "127.0.0.1", *place)
        start("termite-master", "-coordinator", address, "-short", "0")
        wait_for_workers(tree)
        yield


def wait_for_workers(tree: Path) -> None:
    """Wait until the master of the tree has leased slots of each worker."""
    limit_s = time.monotonic() + LIMIT_S
    while time.monotonic() < limit_s:
        done = subprocess.run(
            [COMMANDS / "termite-ctl", "status"], cwd=tree, capture_output=True, text=True, check=False
        )
        if all(name in done.stdout for name in WORKERS):
            return
        time.sleep(0.2)
    raise TimeoutError(f"the workers do not come: {done.stdout}{done.stderr}")
