"""Make the system calls with which this room starts mirrors and makes their homes.

Tests start a worker with other calls in their place, which end the process or fail at the N-th one.
The product itself has no such switch.
"""

from os import dup as dup
from os import fchown as fchown
from os import mkdir as mkdir
from os import open as open
from os import pidfd_open as pidfd_open
from os import pipe as pipe
from socket import socketpair as socketpair
from subprocess import Popen as Popen
