"""Check the paths in the result of a job, which a worker has sent, before anybody looks at them.

Later steps take time for each byte or each name of a path, and many of them on the event loop.
"""

from termite.engine.paths import RESULT_BYTES, check_paths
from termite.engine.wire.protocol.messages import Ran


def check_result_paths(ran: Ran) -> None:
    """Raise RemoteProtocolError if a path is none that a mirror can read, by form or by length."""
    paths = [change.path for change in ran.changes]
    paths.extend(change.link_to for change in ran.changes if change.link_to is not None)
    paths.extend(ran.dropped)
    if paths:
        check_paths(paths, RESULT_BYTES)
