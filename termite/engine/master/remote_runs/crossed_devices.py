"""Have a command run here that a worker could not let rename or link, because of its layers.

The file system of a job consists of layers. The kernel refuses to rename a directory of a lower one
with EXDEV, and to link between the tree and `/tmp`. At home these are one file system. Nearly
all programs copy then, as mv(1) does, and nobody notices. The others print the error.
"""

from termite.engine.errors import Reason, ResultRefused
from termite.engine.master.job import Job

# The error as C libraries, Go, Rust, Java and Node.js word it in English; the first letter varies.
_WORDS = b"ross-device link"


def refuse_crossed_devices(job: Job) -> None:
    """Raise ResultRefused if a command has printed this error, and can be run again here.

    It cannot if its output was shown, if its input was read, or if it had the network. The exit
    code does not matter, because a script may go on.
    """
    if _WORDS not in job.output.tail.content:
        return
    if not (job.output.has_shown or job.stdin.is_consumed or job.may_have_used_network):
        raise ResultRefused(Reason.CROSSED_DEVICES, ())
