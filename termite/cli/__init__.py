"""What the user types, except the build tools. Commands are imported when called: `ctl` must not pay for trio."""

import os
import sys


def coordinator() -> int:
    """termite-coordinator"""
    have_standard_files()
    from termite.cli import daemons

    return daemons.coordinator()


def worker() -> int:
    """termite-worker"""
    have_standard_files()
    from termite.cli import daemons

    return daemons.worker()


def master() -> int:
    """termite-master"""
    have_standard_files()
    from termite.cli.claims import claim_tree

    claim = claim_tree(sys.argv[1:])
    from termite.cli.master import main

    return main(claim=claim)


def make() -> int:
    """termite-make"""
    have_standard_files()
    from termite.cli.front_ends.make import main

    return leave(main())


def ninja() -> int:
    """termite-ninja"""
    have_standard_files()
    from termite.cli.front_ends.ninja import main

    return leave(main())


def cmake() -> int:
    """termite-cmake"""
    from termite.cli.front_ends.cmake import main

    return leave(main())


def build() -> int:
    """termite-build"""
    from termite.cli.front_ends.build import main

    return leave(main())


def ctl() -> int:
    """termite-ctl"""
    have_standard_files()
    from termite.cli.ctl import main

    return main()


def leave(status: int) -> int:
    """End with that exit code, and without the interpreter's tidying up: 3 ms that every build would wait for."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except OSError:
        return status  # the interpreter says so as it always does
    os._exit(status)


def have_standard_files() -> None:
    """Where 0, 1 or 2 is closed, nothing that we open may take its place. What we start finds it closed as before."""
    while (descriptor := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= 2:
        pass
    sys.stdout = sys.stdout or os.fdopen(os.dup(descriptor), "w")
    sys.stderr = sys.stderr or os.fdopen(os.dup(descriptor), "w")
    os.close(descriptor)
