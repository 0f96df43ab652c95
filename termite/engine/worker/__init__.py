"""The room of the worker daemon, which shares this machine's slots between masters.

The listening socket, the mirror processes, their users and directories, and the registration live
here; `slot_shares` divides the slots. The room may import `fleet`, `host`, `store`, `wire` and
everything below them. It must not import `master`, `launch`, `tree` or `decide`.
Do not touch: this process reads no byte from a master's socket. Only the mirror process of that
master does.
"""
