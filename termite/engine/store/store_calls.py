"""Make the system calls with which this room reads and writes blobs.

Tests start the mirrors with other calls in their place, which end the process or fail at the N-th
one. The product itself has no such switch.
"""

from os import fstat as fstat
from os import ftruncate as ftruncate
from os import link as link
from os import listdir as listdir
from os import makedirs as makedirs
from os import open as open
from os import pread as pread
from os import pwrite as pwrite
from os import scandir as scandir
from os import stat as stat
from os import unlink as unlink
from os import utime as utime
from os import write as write
