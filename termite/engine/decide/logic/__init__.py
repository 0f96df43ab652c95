"""The pure part of the decision.

`rules` and `ties` judge whether a command is local, and `commands` makes the text that rules see.
`switches` reads TERMITE and TERMITE_LOCAL, by which the user forbids remote or local runs.
A function here gets all that it needs as arguments, and returns a value or raises `UserError`.
The room may import `paths`, `errors` and `model` of the engine.
It must not import os, time, trio or anything else that waits, reads a file or reads a clock.
The import contract "What thinks does not wait" checks that.
"""
