"""Look at the pages in a real browser: `make screenshots`."""
