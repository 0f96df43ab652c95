"""Programs that measure termite beside plain builds and its peers: `make bench`, explained in docs/performance.md."""
