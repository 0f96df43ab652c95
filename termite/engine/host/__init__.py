"""The room of facts about this machine, whether it is a worker or a master.

The checks that run before the first job, the places of the native programs, and the tail of this
process's log live here.
The room may import `loop`, `status` and the modules on the ground of the engine.
The room must not know jobs, leases or connections, and it keeps no state.
Mirrors import this room too, so that it must not import `cryptography`.
"""
