"""Know the system calls in which a thread can wait for a pipe.

Here lives `blocked_calls`: the tables of numbers, and parsers for the text and memory of a thread.
The room imports nothing of termite. Do not touch: no function here reads /proc itself, so that
tests can give it the text of any kernel and architecture.
"""
