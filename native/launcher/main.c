/* termite, termite-shell: hands one command to the master of this tree, and ends as the command did.
 *
 * It decides nothing, and it must never be why a build fails: without a master, or where anything is odd before the
 * master has said a word, it becomes the command itself, unless TERMITE_LOCAL=never forbids that. Protocol:
 * docs/develop/protocol.md, "Launcher". */
#include "launcher.h"
#include "../shared/records.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* A connection to the master that has our invocation, or -1. It is sent as soon as the master knows of us, so that it
 * is there when that looks: to wait for it would cost the master more than all else that it does for a short command. */
static int invoke_master(const char *path, const struct command *command, const char *cwd)
{
    struct buffer frame = {0};
    int master = -1;
    if (make_invocation(&frame, command, cwd) && (master = connect_master(path)) >= 0 &&
        !send_whole(master, frame.bytes, frame.length)) {
        close(master);
        master = -1;
    }
    free(frame.bytes);
    return master;
}

/* A command whose stdout or stderr is closed must see that when it writes: only here can it. */
static bool can_be_heard(void)
{
    return fcntl(STDOUT_FILENO, F_GETFD) >= 0 && fcntl(STDERR_FILENO, F_GETFD) >= 0;
}

/* Without a master that takes it. */
static _Noreturn void run_here(const struct command *command, const char *cwd, const char *path)
{
    if (path)
        check_may_run_here(command, "no master answers (termite-ctl start starts one) at ", path);
    else if (cwd)
        check_may_run_here(command, "no master serves this directory (termite-ctl start starts one)", "");
    else if (can_be_heard())
        check_may_run_here(command, "the working directory cannot be told: ", failure_text(errno));
    else
        check_may_run_here(command, "its stdout or stderr is closed, which it can see only here", "");
    exec_command(command, &(struct local_run){.recurse = false});
}

int main(int argc, char **argv)
{
    if (argc < 1)
        return EXIT_FAILED;
    struct command command = parse_command_line(argv);
    char *cwd = can_be_heard() ? getcwd(NULL, 0) : NULL;
    char socket_path[PATH_MAX];
    const char *path = cwd ? find_master(cwd, socket_path) : NULL;
    int master = path ? invoke_master(path, &command, cwd) : -1;
    if (master >= 0)
        relay(master, &command);
    run_here(&command, cwd, path);
}
