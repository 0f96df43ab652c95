"""Choose the contents of locally written files that a Run sends along.

The job starts only when they have arrived, so the limits are lower for distant workers. Mirrors
fetch everything else on demand.
"""

from termite.engine.fleet.lease import Lease
from termite.engine.tree.master_tree import MasterTree

# Limits in bytes: of one file, and of all.
SENT_ALONG_NEAR_BYTES = (64 * 1024, 128 * 1024)
SENT_ALONG_FAR_BYTES = (4 * 1024, 16 * 1024)
SENT_ALONG_FILES = 256  # at most; reading one blocks the master for 40 us


def take_contents(tree: MasterTree, lease: Lease, number: int) -> dict[bytes, bytes]:
    """Return small files that were written since the last Run of the lease, by path.

    From now on, the lease knows the files up to the number `number` of the journal.
    """
    limits = SENT_ALONG_NEAR_BYTES if lease.is_near else SENT_ALONG_FAR_BYTES
    contents = tree.contents_since(lease.sent_number, *limits, SENT_ALONG_FILES)
    lease.sent_number = number
    return contents
