/* Dispatch the subcommands of termite-sandbox; the text of --help lists them.
 *
 * `serve` reports its failures to the mirror's socket. The other subcommands print theirs on
 * stderr. docs/develop/protocol.md describes all of them under "Sandbox". */
#include "sandbox.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static const char USAGE[] =
    "usage: termite-sandbox serve [--network | --private=PASTA | --network-of=FD] [--trace=exact|compiler]\n"
    "                             [--own=UID:GID[:GROUP]...] SOCKET_FD SCRATCH\n"
    "       termite-sandbox remove SCRATCH\n"
    "       termite-sandbox enter [--group=FILE] [--uid=N --gid=N] -- PROGRAM [ARGUMENT...]\n"
    "       termite-sandbox deny PROGRAM [ARGUMENT...]\n"
    "       termite-sandbox sockets\n"
    "       termite-sandbox watch\n"
    "       termite-sandbox trace\n"
    "\n"
    "termite itself uses these:\n"
    "  serve    make the sandboxes of a mirror's jobs\n"
    "  remove   remove the files that jobs have left\n"
    "  enter    make the namespaces of a mirror process\n"
    "  deny     run a program with a job's filter of system calls\n"
    "  sockets  print how the sockets of jobs are kept apart\n"
    "  watch    print why the system calls of jobs cannot be watched\n"
    "  trace    print why jobs cannot be traced\n";

static const char PRIVATE[] = "--private=", NETWORK_OF[] = "--network-of=", TRACE[] = "--trace=";

/* Return whether `text` is the number of an open descriptor, and write it to *fd. */
static bool parse_fd(const char *text, int *fd)
{
    unsigned long long number;
    if (!parse_number(text, 10, INT_MAX, &number))
        return false;
    *fd = (int)number;
    return fcntl(*fd, F_GETFD) >= 0;
}

/* Parse UID:GID, and the other groups of the submitter, each after another colon. */
static bool parse_ids(const char *text, struct ids *own)
{
    uint32_t ids[2 + GROUPS_MAX];
    size_t count = 0;
    while (text) {
        char word[16];
        unsigned long long id;
        const char *end = strchr(text, ':');
        size_t length = end ? (size_t)(end - text) : strlen(text);
        if (count == sizeof ids / sizeof *ids || length >= sizeof word)
            return false;
        memcpy(word, text, length);
        word[length] = '\0';
        if (!parse_number(word, 10, UINT_MAX - 1, &id))
            return false;
        ids[count++] = (uint32_t)id;
        text = end ? end + 1 : NULL;
    }
    if (count < 2)
        return false;
    *own = (struct ids){.uid = ids[0], .gid = ids[1], .group_count = count - 2};
    memcpy(own->groups, ids + 2, own->group_count * sizeof *ids);
    return true;
}

/* Return whether a word begins with `prefix`. NULL does not. */
static bool begins_with(const char *word, const char *prefix)
{
    return word && strncmp(word, prefix, strlen(prefix)) == 0;
}

/* Parse the options at `argv`, each of which may be absent. Return the number of the next word,
 * or 0 if one is wrong. */
static int parse_options(char **argv, struct sandbox_options *options, struct ids *own)
{
    int next = 2;
    *options = (struct sandbox_options){.network_fd = -1};
    options->network = strcmp(argv[next], "--network") == 0;
    if (begins_with(argv[next], PRIVATE))
        options->pasta = argv[next] + sizeof PRIVATE - 1;
    bool is_joined = begins_with(argv[next], NETWORK_OF);
    if (is_joined && !parse_fd(argv[next] + sizeof NETWORK_OF - 1, &options->network_fd))
        return 0;
    next += options->network || options->pasta || is_joined;
    if (begins_with(argv[next], TRACE)) {
        const char *mode = argv[next] + sizeof TRACE - 1;
        options->trace = strcmp(mode, "exact") == 0 ? EXACT : strcmp(mode, "compiler") == 0 ? FOR_COMPILERS : UNTRACED;
        if (options->trace == UNTRACED)
            return 0;
    }
    next += options->trace != UNTRACED;
    if (!begins_with(argv[next], "--own="))
        return next;
    options->own = own;
    return parse_ids(argv[next] + 6, own) ? next + 1 : 0;
}

/* Serve if `argv` says so. Return otherwise. */
static void serve_if_asked(int argc, char **argv)
{
    int fd;
    struct sandbox_options options;
    struct ids own;
    if (argc < 4 || strcmp(argv[1], "serve") != 0)
        return;
    int next = parse_options(argv, &options, &own);
    if (next == 0 || argc != next + 2 || !parse_fd(argv[next], &fd))
        return;
    report_fd = fd;
    leave_program(argv);
    exit(serve(fd, argv[next + 1], &options));
}

int main(int argc, char **argv)
{
    signal(SIGCHLD, SIG_DFL); /* if it were ignored, the kernel would reap our children */
    serve_if_asked(argc, argv);
    if (argc == 3 && strcmp(argv[1], "remove") == 0)
        return remove_listed(argv[2]);
    if (argc > 2 && strcmp(argv[1], "enter") == 0)
        return enter(argv + 2);
    if (argc > 2 && strcmp(argv[1], "deny") == 0)
        return deny(argv + 2);
    if (argc == 2 && strcmp(argv[1], "sockets") == 0)
        return print_scope();
    if (argc == 2 && strcmp(argv[1], "watch") == 0)
        return print_watch();
    if (argc == 2 && strcmp(argv[1], "trace") == 0)
        return print_tracing();
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        dprintf(STDOUT_FILENO, "termite-sandbox %s\n", TERMITE_VERSION);
        return 0;
    }
    bool help = argc == 2 && strcmp(argv[1], "--help") == 0;
    (void)write_whole(help ? STDOUT_FILENO : STDERR_FILENO, USAGE, sizeof USAGE - 1);
    return help ? 0 : EXIT_FAILED;
}
