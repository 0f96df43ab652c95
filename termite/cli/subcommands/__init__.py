"""The subcommands of termite-ctl: each is a module of its own, with its parser and its work.

* registry.py has the table of all subcommands, and the type Subcommand.
* masters/ has those that start, end and inspect masters.
* builds/ has those that show what happens to the commands of builds.
* machines/ has those that concern a machine or a whole cluster.

To add one, such as `termite-ctl example`:

1. Write the module example.py in one of the three folders. It has the name of the subcommand.
   Its first sentence says what the subcommand does.
2. Give it a constant SUBCOMMAND of the type Subcommand: a summary of one line, a function that
   does the work, and a function that adds its flags to a parser. Both functions are private. The
   first one returns the exit code. A word that is wrong is a UserError. status.py is an example.
3. Add one line to FOLDERS in registry.py. The order there is the order in the help.
4. Add its row, with all its flags, to the section termite-ctl of docs/use/reference.md. A test
   compares the row with the parser.

Nothing else: `help example`, `example --help`, the nearest name for a misspelt flag, the man page
and the completion of shells come from the parser.
Do not touch: a subcommand's own process is short-lived, so its module imports trio, rich and the
like only in its functions.
"""
