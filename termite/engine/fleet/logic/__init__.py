"""The pure part of the fleet: which workers exist, and where the next lease and the next job go.

Times are arguments named `now`, in seconds of the caller's monotonic clock.
The room may import `wire.protocol`, `paths`, `errors` and `model` of the engine.
It must not import os, time, trio or anything else that waits, reads a file or reads a clock.
The import contract "What thinks does not wait" checks that.
"""
