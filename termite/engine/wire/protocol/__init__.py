"""Define what is on the wire: frames, messages, fields, and the state of one connection.

* `frames` cuts bytes into frames, and `peer` is the state of one side.
* `messages` and `fleet_messages` are the messages between daemons, with `message_base` below them.
  `message_parts` cuts long ones, and `failure_replies` carries errors.
* `launcher_frames` are the frames of launchers, and `control_lines` the lines of mirrors. `fields`
  are the texts `key=value` of which messages of launchers and sandboxes consist.
* `foreign_text` makes texts of others safe to show.

The room imports `model` and `errors`; nothing here waits or does I/O.
Do not touch: fields of messages are only added at the end, with a default. Bytes of a peer are
hostile until they were decoded here, so a limit belongs into the type of its field.
"""
