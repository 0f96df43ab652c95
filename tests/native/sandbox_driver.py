"""Runs one job as a mirror process does. Started inside `termite-sandbox enter`; needs Python's own library only.

stdin: a JSON object; stdout: another one. Bytes travel as latin-1 text.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

LIMIT_S = 30


def make_scratch(base: Path, tmpfs: bool) -> Path:
    base.mkdir()
    if tmpfs:
        subprocess.run(["mount", "-t", "tmpfs", "scratch", base], check=True)
    scratch = base / "1"
    scratch.mkdir()
    for name in ("upper", "work", "root"):
        (scratch / name).mkdir()
    return scratch


def upper_entries(upper: Path) -> dict[str, str]:
    """What the job has left, by path: the content of a file, or the kind of anything else."""
    entries = {}
    for path in sorted(upper.rglob("*")):
        name = str(path.relative_to(upper))
        if path.is_file():
            entries[name] = path.read_bytes().decode("latin-1")
        else:
            entries[name] = "directory" if path.is_dir() else "other"
    return entries


def write_config(config: list[list[str]]) -> int:
    fd = os.memfd_create("config")
    os.write(fd, b"".join(f"{key}={value}".encode("latin-1") + b"\0" for key, value in config))
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def main(order: dict[str, Any]) -> dict[str, Any]:
    for number in (signal.SIGPIPE, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a daemon may; the job must not notice
    scratch = make_scratch(Path(order["scratch"]), order["tmpfs"])
    config = write_config([["scratch", str(scratch)], *order["config"]])
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [order["program"], "run", str(config), str(writer)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=(config, writer),
        restore_signals=False,
    )
    os.close(writer)
    if order["kill"]:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(order["kill"])
    out, err = process.communicate(timeout=LIMIT_S)
    with open(reader, "rb") as status:
        records = status.read()
    return {
        "code": process.returncode,
        "out": out.decode("latin-1"),
        "err": err.decode("latin-1"),
        "records": records.decode("latin-1"),
        "upper": upper_entries(scratch / "upper"),
        "network": os.readlink("/proc/self/ns/net"),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
