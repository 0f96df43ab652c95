"""Define what is on the wire: frames, messages, records, and the state of one connection.

The messages between daemons live in `messages`, and the frames and records of launchers in
`records`. The room imports `model` and `errors`; nothing here waits or does I/O.
Do not touch: fields of messages are only added at the end, with a default. Bytes of a peer are
hostile until they were decoded here, so a limit belongs into the type of its field.
"""
