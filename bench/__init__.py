"""Programs that measure termite beside plain builds and its peers.

Run them with `make bench`; docs/develop/performance.md explains them.
"""
