"""Make the system calls with which this room uses sockets and the descriptors of keys.

Everything in this room that waits for the kernel or can be refused by it goes through this module.
Tests start the daemons with other calls in their place, which end the process or fail at the N-th
one. The product itself has no such switch.
"""

from os import memfd_create as memfd_create
from os import readv as readv
from os import write as write
from socket import socket

from trio import open_tcp_listeners as open_tcp_listeners
from trio import open_tcp_stream as open_tcp_stream
from trio.socket import socketpair as socketpair

recv = socket.recv
send = socket.send
