"""Make the system calls with which this room talks to launchers.

Tests start a master with other calls in their place, which end the process or fail at the N-th one.
The product itself has no such switch.
"""

from os import read as read
from os import write as write
from socket import socket

accept = socket.accept
getsockopt = socket.getsockopt
