"""Keep on the disk what must outlive a master that is killed while it publishes.

* `plan_file` holds the steps of one publication, until all of them are done.
* `discard_note` holds the lines that name lost results, until a user has read them.

The room may import `tree_disk`, and `logic` of the tree; its files are in the staging directory.
Do not touch: a plan counts only in the file to which it was written, and a note only in its own.
"""
