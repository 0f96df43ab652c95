/* Hand one command to the master of this tree, and end as the command does: termite, termite-shell.
 *
 * The launcher decides nothing, and must never be why a build fails. It becomes the command itself
 * if there is no master, or if anything is odd before the master has sent a byte.
 * TERMITE_LOCAL=never forbids that, and so does the mark of a tree that is built at another path.
 * With TERMITE=off it becomes the command at once.
 * docs/develop/protocol.md describes the protocol under "Launcher". */
#include "launcher.h"
#include "../shared/fields.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* Connect to the master at `path` and send the invocation. Return the connection, or -1 if that
 * fails.
 *
 * The invocation is sent at once, so that it has arrived when the master looks at the new
 * connection. Waiting for it would cost the master more than everything else that it does for a
 * short command. */
static int invoke_master(const char *path, const struct command *command, const char *cwd)
{
    struct buffer frame = {0};
    int master = -1;
    if (make_invocation(&frame, command, cwd, redo_token(path)) && (master = connect_master(path)) >= 0 &&
        !send_whole(master, frame.bytes, frame.length)) {
        close(master);
        master = -1;
    }
    free(frame.bytes);
    return master;
}

/* Return whether stdout and stderr are open. A command that writes to a closed one must see an
 * error, and on a worker it would not. */
static bool can_be_heard(void)
{
    return fcntl(STDOUT_FILENO, F_GETFD) >= 0 && fcntl(STDERR_FILENO, F_GETFD) >= 0;
}

/* Run the command on this machine, because no master has taken it. `cwd` and `path` are NULL if
 * they could not be determined. */
static _Noreturn void run_here(const struct command *command, const char *cwd, const char *path)
{
    if (cwd)
        check_mark(cwd);
    if (path)
        check_may_run_here(command, "no master answers (termite-ctl start starts one) at ", path);
    else if (cwd)
        check_may_run_here(command, "no master serves this directory (termite-ctl start starts one)", "");
    else if (can_be_heard())
        check_may_run_here(command, "cannot determine the working directory: ", failure_text(errno));
    else
        check_may_run_here(command, "stdout or stderr is closed, which a command on a worker would not notice", "");
    exec_command(command, &(struct local_run){.recurse = false});
}

int main(int argc, char **argv)
{
    if (argc < 1)
        return EXIT_FAILED;
    struct command command = parse_command_line(argv);
    if (is_switched_off())
        exec_command(&command, &(struct local_run){.recurse = false});
    char *cwd = can_be_heard() ? getcwd(NULL, 0) : NULL;
    char socket_path[PATH_MAX];
    const char *path = cwd ? find_master(cwd, socket_path) : NULL;
    int master = path ? invoke_master(path, &command, cwd) : -1;
    if (master >= 0)
        relay(master, &command);
    run_here(&command, cwd, path);
}
