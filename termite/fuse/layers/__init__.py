"""Keep directories on this worker's disk that jobs see through overlayfs, without a request.

Here live the real layers (changed names), the warm layer (files that were read), and `RealTree`.
The room imports `content`, `sandbox` and `view` of the mirror, and `store` of the engine.
Do not touch: a layer or generation never changes once a job may see it. A new one takes its place.
Only `RealTree` writes to these directories, because the master that names the files is not trusted.
"""
