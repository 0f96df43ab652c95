"""Decide what the result of a job depends on, and whether an input changed while it ran.

The terms are those of BuildXL's two-phase look-up. A path set has the paths on which one run of a
command depended.
The room imports `model`, `paths` and `tree.logic` of the engine. If a fact of the tree is missing,
`FactsMissing` is raised; the caller gets the facts and calls again.
Do not touch: nothing here may wait or read the disk, and no path of a trace may be trusted.
"""
