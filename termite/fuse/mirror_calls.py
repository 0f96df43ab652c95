"""Make the system calls with which a mirror uses its disk and the descriptors of its jobs.

A call that the kernel refuses here is refused to the mirror, and never to the job. Tests start the
mirrors with other calls in their place, which end the process or fail at the N-th one. The product
itself has no such switch.
"""

from os import fstat as fstat
from os import link as link
from os import memfd_create as memfd_create
from os import mkdir as mkdir
from os import open as open
from os import pipe as pipe
from os import pread as pread
from os import read as read
from os import scandir as scandir
from os import stat as stat
from os import statvfs as statvfs
from os import symlink as symlink
from os import utime as utime
from os import write as write
from select import epoll as epoll
from socket import send_fds as send_fds
from socket import socketpair as socketpair
