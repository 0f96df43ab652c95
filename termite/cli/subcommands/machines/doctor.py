"""Check that this machine can run jobs."""

import os
from argparse import Namespace

from termite.cli.subcommands.registry import Subcommand


def _run(flags: Namespace) -> int:
    from termite.engine.host import preflight
    from termite.engine.host.native_programs import native_program

    sandbox = native_program("termite-sandbox")
    machine = preflight.read_machine()
    preflight.check_machine(machine)
    root = os.geteuid() == 0
    preflight.check_fuse(root=root)
    preflight.check_sandbox(sandbox, None)
    scratch = "memory" if preflight.has_tmpfs_upper(machine.kernel) else "disk"
    print(f"this machine can run jobs (Linux {machine.kernel}, scratch files in {scratch})")
    unfiltered = preflight.why_calls_are_not_denied(sandbox)
    if unfiltered:
        print(f"jobs may make system calls that no build needs: {unfiltered}")
    else:
        print("jobs are denied system calls that no build needs")
    print(_SOCKET_GUARDS[preflight.socket_guard(sandbox)])
    return 0


_SOCKET_GUARDS = {
    "landlock": "jobs cannot reach abstract sockets outside of themselves, because Landlock forbids it",
    "namespaces": "jobs cannot reach abstract sockets outside of themselves, because each has a network namespace "
    "(this kernel has no Landlock ABI 6 of Linux 6.12); only jobs with a Network rule reach those of this machine",
}


SUBCOMMAND = Subcommand("check that this machine can run jobs", _run)
