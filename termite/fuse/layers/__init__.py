"""Keep directories on this worker's disk that jobs see through overlayfs, without a request.

* `real_layers` are changed names, and `real_layer_build` writes one of them.
* `warm_layer` has files that were read, and `warm_generation` writes one generation of it.
* `prefetch` fetches small changed files ahead, and `real_tree` writes to the disk for all.

The room imports `content`, `sandbox` and `view` of the mirror, and `store` of the engine.
Do not touch: a layer or generation never changes once a job may see it. A new one takes its place.
Only `RealTree` writes to these directories, because the master that names the files is not trusted.
"""
