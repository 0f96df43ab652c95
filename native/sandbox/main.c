/* Dispatch the subcommands of termite-sandbox; the text of --help lists them.
 *
 * `serve` reports its failures to the mirror's socket. The other subcommands print theirs on
 * stderr. docs/develop/protocol.md describes all of them under "Sandbox". */
#include "sandbox.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>

static const char USAGE[] =
    "usage: termite-sandbox serve [--network | --private=PASTA] SOCKET_FD SCRATCH\n"
    "       termite-sandbox remove SCRATCH\n"
    "       termite-sandbox enter [--uid=N --gid=N] -- PROGRAM [ARGUMENT...]\n"
    "       termite-sandbox deny PROGRAM [ARGUMENT...]\n"
    "       termite-sandbox sockets\n"
    "\n"
    "termite itself uses these:\n"
    "  serve    make the sandboxes of a mirror's jobs\n"
    "  remove   remove the files that jobs have left\n"
    "  enter    make the namespaces of a mirror process\n"
    "  deny     run a program with a job's filter of system calls\n"
    "  sockets  print how the sockets of jobs are kept apart\n";

static const char PRIVATE[] = "--private=";

/* Return whether `text` is the number of an open descriptor, and write it to *fd. */
static bool parse_fd(const char *text, int *fd)
{
    unsigned long long number;
    if (!parse_number(text, 10, INT_MAX, &number))
        return false;
    *fd = (int)number;
    return fcntl(*fd, F_GETFD) >= 0;
}

int main(int argc, char **argv)
{
    int fd;
    signal(SIGCHLD, SIG_DFL); /* if it were ignored, the kernel would reap our children */
    bool network = argc > 2 && strcmp(argv[2], "--network") == 0;
    const char *pasta = argc > 2 && strncmp(argv[2], PRIVATE, strlen(PRIVATE)) == 0 ? argv[2] + strlen(PRIVATE) : NULL;
    int options = network || pasta ? 1 : 0;
    if (argc == 4 + options && strcmp(argv[1], "serve") == 0 && parse_fd(argv[2 + options], &fd)) {
        report_fd = fd;
        leave_program(argv);
        return serve(fd, argv[3 + options], network, pasta);
    }
    if (argc == 3 && strcmp(argv[1], "remove") == 0)
        return remove_listed(argv[2]);
    if (argc > 2 && strcmp(argv[1], "enter") == 0)
        return enter(argv + 2);
    if (argc > 2 && strcmp(argv[1], "deny") == 0)
        return deny(argv + 2);
    if (argc == 2 && strcmp(argv[1], "sockets") == 0)
        return print_scope();
    bool help = argc == 2 && strcmp(argv[1], "--help") == 0;
    (void)write_whole(help ? STDOUT_FILENO : STDERR_FILENO, USAGE, sizeof USAGE - 1);
    return help ? 0 : EXIT_FAILED;
}
