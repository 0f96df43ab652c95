"""The room of the worker daemon, which shares this machine's slots between masters.

The listening socket, the mirror processes, their users and directories, and the registration live
here. The room may import `fleet`, `host`, `store`, `wire` and everything below them. It must not
import `master`, `launch`, `tree` or `decide`. It must not read a byte from a master's socket: only
the mirror process of that master does.
"""
