"""Run a Python program of termite that takes this machine's kernel for another one.

usage: other_kernel.py PYTHON PROGRAM ARGUMENTS...
No program changes what the kernel says of itself to a value that jobs can run with.
"""

import runpy
import sys

import msgspec

from termite.engine.host import machine
from termite.engine.worker import worker_daemon

OURS = machine.read_facts()

worker_daemon.read_facts = lambda: msgspec.structs.replace(OURS, kernel="Linux 6.0-other")  # type: ignore[attr-defined]  # imported there
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
