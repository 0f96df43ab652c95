"""Decide what a result depends on, and whether these things are still as they were.

The terms are those of BuildXL's two-phase look-up: a weak fingerprint names a command, a path set
has the paths that one of its runs depended on, and a strong fingerprint names their states too.
The room imports `model`, `paths` and `tree.logic` of the engine. If a fact of the tree is missing,
`FactsMissing` is raised; the caller gets the facts and calls again.
Do not touch: nothing here may wait or read the disk, and no path of a trace may be trusted.
"""
