"""The help of the front ends for make and ninja. A build does not wait for its import."""

HELP = """termite-{tool} {version}: {tool}, with its commands run on other machines

usage: termite-{tool} [any arguments of {tool}]

The build uses the master that runs in this directory or above it. If there is none, termite-{tool}
starts a master with a worker on this machine, which ends ten minutes after the last build.

  TERMITE_ROOT     directory below which commands may write, for a new master
                   (default: the checkout, or this directory)
  TERMITE_SHORT    limit of short commands, which run here, for a new master: milliseconds;
                   0: none; auto: 50 times the dispatch overhead, at most a second (default: auto)
  TERMITE_ENV_EXCLUDE  patterns of variables that are not sent to workers, for a new master:
                   'AWS_* *_TOKEN' (default: none)
  TERMITE_TMP      private: a new master gives every command on a worker a /tmp of its own
                   (default: shared)
  TERMITE_SOCKET   socket of the master to use (default: the nearest one); empty: use no master
  TERMITE_LOCAL    never: if no worker can run a command, fail instead of running it here
  TERMITE          off: build as if termite were not installed
  TERMITE_VERBOSE  1: print at the end of every build what ran where

The file .termite-localrc beside the socket has rules for where commands run.
`termite-ctl why COMMAND` shows where a command would run and which rule decides that.
`termite-ctl status` shows the workers. `{tool} --help` shows the help of {tool}."""
