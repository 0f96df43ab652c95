"""Trees that are built at another path than their own (`--at PATH`).

* marks.py reads and writes the file that says at which path a tree is built, and refuses others.
* path_rules.py decides which paths a tree may be built at.
* own_words.py takes the flag from the words of a build tool.
* path_text.py translates paths in texts from one of the two paths to the other.
* private_mounts.py makes and joins mount namespaces.
* moves.py moves processes to the namespace of a tree: the master, front ends, termite-ctl.

A tree has two paths. Its *own path* is the one that the user knows. Its *build path* is the one
that a build sees: the master, the build tool and all commands live in a private mount namespace in
which the tree stands there. Files that outlive a master, such as its log, are named after the own
path, because two trees may have one build path.

Do not touch: marks.py and own_words.py start with every build, so they import little.
"""
