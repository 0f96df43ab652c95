"""Answer the kernel's requests to the mount of one mirror.

Here live the operations (`ops`), the forms of their `answers`, what the master has said of private
entries (`private_names`), and the loop that reads requests from /dev/fuse (`session`).
The room imports `layers`, `content`, `stdin`, `running_jobs` and `view`.
Do not touch: every request of every job passes here, so handlers make no task, log or copy.
`opendir` and the mirror's own names must never wait for the master: jobs would lock each other.
"""
