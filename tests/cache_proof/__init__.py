"""The proof of the cache: real builds with stored results, of which every one is executed as well.

A round mutates the tree of a package, and builds with termite. Then a copy of the tree as it was is
built plainly at the same path. Contents, modes, links, set times, exit code and output must be
equal. Everything random in a round comes from the seed and the number of the round.

`python -m tests.cache_proof` runs rounds for some minutes; tests/e2e/test_cache_proof.py runs some.
A module here may use the places and clusters of tests/e2e. pytest collects nothing here.
"""
