"""The pure part of the decision.

* `rules` and `ties` judge whether a command is local; `suggested_rule` writes a rule for a user.
* `commands` makes the text that rules see, and `command_mask` hides credentials in it.
* `switches` reads TERMITE and TERMITE_LOCAL, by which the user forbids remote or local runs.
* `questions` and `attribute_programs` judge a command by its text.
* `outside_places`, `droppable` and `later_code` judge what a command has written, and where.

A function here gets all that it needs as arguments, and returns a value or raises `UserError`.
The room may import `paths`, `errors` and `model` of the engine.
Do not touch: nothing here waits, reads a file or reads a clock. The import contract "What thinks
does not wait" checks that.
"""
