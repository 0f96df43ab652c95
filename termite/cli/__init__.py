"""Commands that the user types: the front ends in build_commands/, the daemons, and termite-ctl.

* ctl.py, daemons.py, master_command.py and redo_program.py are commands; parser.py and flags.py
  read their words.
* subcommands/ has the commands of termite-ctl, and says how to add one.
* ssh_hosts/ makes other machines workers, over ssh.
* doctor/ checks machines, and moved_trees/ builds trees at another path (`--at PATH`).
* readers/ reads records and the live stream, display/ makes texts and screens of them, and web/
  makes and serves pages; page_startup/ starts the serving.
* written_files/ has the files that commands write for people or for later commands.
* client.py talks to a master, and claims.py makes sure that only one is started.
* shell_conversation.py is the terminal of `termite-ctl shell`.
* places.py knows the directories of the user, and amounts.py sizes and other numbers.
* logs/ has the logs of daemons and the reports of crashes.
* leftovers/ cleans up after daemons that were killed.

This room may import engine/; engine/, fuse/ and the plugins import nothing from this room.
Do not touch: client.py, claims.py, flags.py and places.py start with every build, so they import
little.
Each function of this module is the entry point of one command. It imports that command's module
only when it is called, because `termite-ctl` must not wait for the import of trio.
"""

import importlib
import os
import signal
import sys


def coordinator_command() -> int:
    """Run termite-coordinator and return its exit code."""
    have_standard_files()
    outlive_signal()
    from termite.cli import daemons
    from termite.cli.flags import run_reporting

    return run_reporting("termite-coordinator", daemons.coordinator)


def worker_command() -> int:
    """Run termite-worker and return its exit code."""
    have_standard_files()
    outlive_signal()
    from termite.cli import daemons
    from termite.cli.flags import run_reporting

    return run_reporting("termite-worker", daemons.worker)


def master_command() -> int:
    """Run termite-master and return its exit code."""
    have_standard_files()
    outlive_signal()
    from termite.cli.claims import claim_tree

    claim = claim_tree(sys.argv[1:])
    from termite.cli.flags import run_reporting
    from termite.cli.master_command import main

    return run_reporting("termite-master", lambda: main(claim=claim))


def front_end_command() -> int:
    """Run a front end and return its exit code.

    The first word has the signals that the caller ignores ("13,25"; 0: not ignored). The second one
    is the name of the front end, and the others are those of the user. Without these words,
    somebody has started it by hand.
    """
    if len(sys.argv) < 3:
        print("termite-front-end: the front ends start this themselves, such as termite-make", file=sys.stderr)
        return 100
    ignored, name = sys.argv[1:3]
    del sys.argv[1:3]
    if name in ("make", "ninja"):
        have_standard_files()
    from termite.cli.build_commands import callers_signals

    callers_signals.ignored = frozenset(map(int, ignored.split(",")))
    module = importlib.import_module(f"termite.cli.build_commands.{name}")
    return leave(module.main())


def ctl_command() -> int:
    """Run termite-ctl and return its exit code."""
    have_standard_files()
    from termite.cli.ctl import main

    return main()


def redo_command() -> int:
    """Run termite-redo and return its exit code."""
    from termite.cli.redo_program import main

    return leave(main())


def leave(status: int) -> int:
    """End this process with exit code `status`. Return it only if the output cannot be flushed.

    The interpreter's cleanup is skipped, because every build would wait 3 ms for it.
    """
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except OSError:
        return status  # the interpreter reports the error when it ends
    os._exit(status)


def outlive_signal() -> None:
    """Ignore SIGUSR1 until the daemon can answer it. Programs that we start do not inherit this."""
    signal.signal(signal.SIGUSR1, lambda number, frame: None)


def have_standard_files() -> None:
    """Occupy each of the descriptors 0, 1 and 2 that is closed, so that no file of ours takes it.

    Programs that we start find these descriptors closed, as we did.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= 2:
        pass
    sys.stdout = sys.stdout or os.fdopen(os.dup(descriptor), "w")
    sys.stderr = sys.stderr or os.fdopen(os.dup(descriptor), "w")
    os.close(descriptor)
