"""Build what is shipped: a wheel, a bundle for machines without pip, and a Debian package.

* release.py knows the version, the time of the last commit, and the architecture.
* wheel_file.py builds the wheel, and gives it a tag for the C library that it needs.
* programs.py reads which libraries and which C library a program needs.
* product_tree.py makes a directory with termite and all Python packages, for any place.
* checkout_tree.py makes it of a checkout without a compiler, for `termite-ctl add`.
* archives.py writes a tree as bytes that depend on nothing but the tree.
* bundle.py and debian_package.py pack the tree.

`make dist` runs __main__.py. Two runs on one commit give the same bytes.
"""
