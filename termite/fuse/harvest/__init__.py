"""Turn what a job has written into changes, and put its new contents into the store.

Here live `upper_layer`, which reads the upper layer from disk, and `collect`, which joins that with
the pure comparison of `view` and with the store.
The room imports `layers` and `view` of the mirror, and `beneath`, `store` and `wire` of the engine.
Do not touch: open files by descriptor only, because another job may still change these directories.
Nothing may be stored or changed before `lower` has answered for all entries; it may raise `Need`.
"""
