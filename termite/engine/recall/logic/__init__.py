"""Decide what the result of a job depends on, and whether an input changed while it ran.

* `traced_paths` names the accesses of a job, `name_walk` follows their paths as the kernel does,
  and `tree_facts` looks at the AttrTree for both.
* `dependencies` makes a path set of the accesses. `uses` and `use_rules` say which part of a state
  a job has used; `interpreters`, `overwriters` and `temporary_entries` are special cases.
* `concurrent_changes` finds inputs that changed while the job ran, and `changed_inputs` those that
  another run would find changed.

The terms are those of BuildXL's two-phase look-up. A path set has the paths on which one run of a
command depended.
The room imports `model`, `paths` and `tree.logic` of the engine. If a fact of the tree is missing,
`FactsMissing` is raised; the caller gets the facts and calls again.
Do not touch: nothing here may wait or read the disk, and no path of a trace may be trusted.
"""
