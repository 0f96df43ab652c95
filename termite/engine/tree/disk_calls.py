"""Make the system calls with which this room changes the disk.

Everything in this room that changes a file goes through this module. Tests start a master with
another module in its place, which ends the process or fails at the N-th call. The product itself
has no such switch. `close` is for files that were written: a network file system may refuse the
content only then. Files that are only read go through `look_calls`.
"""

from os import chmod as chmod
from os import chown as chown
from os import close as close
from os import copy_file_range as copy_file_range
from os import fchmod as fchmod
from os import ftruncate as ftruncate
from os import link as link
from os import mkdir as mkdir
from os import mkfifo as mkfifo
from os import open as open
from os import pwrite as pwrite
from os import rename as rename
from os import rmdir as rmdir
from os import setxattr as setxattr
from os import symlink as symlink
from os import unlink as unlink
from os import utime as utime
from os import write as write

from termite.engine.beneath import rename_new as rename_new
