"""What the tests expect of whoever starts them: `umask 077; make test &` is a way to do that, too."""

import os
import signal

os.umask(0o022)
# A shell without job control lets what it runs in the background ignore the keyboard's signals, nohup the hang-up.
signal.signal(signal.SIGINT, signal.default_int_handler)
for _number in (signal.SIGQUIT, signal.SIGHUP):
    signal.signal(_number, signal.SIG_DFL)
