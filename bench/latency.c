/* latency: measure how long commands take, one after the other, each once in every turn.
 *
 *     latency TURNS -- COMMAND ARG... [--- COMMAND ARG...]...
 *
 * The program starts each command with posix_spawn, waits for it, and prints one line per turn with
 * the nanoseconds of each command. If a word cd=DIRECTORY stands before a command, the command runs
 * in that directory, otherwise in the directory of this program. TERMITE_SOCKET is removed, so that
 * a command finds a master only by its directory. A command whose exit code is not 0 is an error.
 * The program is written in C because a loop in Python would add milliseconds of its own. */
#include <errno.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#define MAX_COMMANDS 16
#define DIRECTORY "cd="

extern char **environ;

struct command {
    char **argv;
    char *directory; /* NULL: the directory of this program */
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t run_once(const struct command *command)
{
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    if (command->directory)
        posix_spawn_file_actions_addchdir_np(&actions, command->directory);
    pid_t pid;
    int status;
    uint64_t start = now_ns();
    int error = posix_spawnp(&pid, command->argv[0], &actions, NULL, command->argv, environ);
    if (error) {
        fprintf(stderr, "latency: %s: %s\n", command->argv[0], strerror(error));
        exit(1);
    }
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            exit(1);
    }
    uint64_t took = now_ns() - start;
    posix_spawn_file_actions_destroy(&actions);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fprintf(stderr, "latency: %s ended with status %d\n", command->argv[0], status);
        exit(1);
    }
    return took;
}

/* Split the words into commands at each `---`; return the number of commands. */
static int read_commands(char **words, struct command commands[MAX_COMMANDS])
{
    int count = 0;
    while (*words && count < MAX_COMMANDS) {
        struct command *command = &commands[count++];
        command->directory = NULL;
        if (strncmp(*words, DIRECTORY, sizeof DIRECTORY - 1) == 0)
            command->directory = *words++ + sizeof DIRECTORY - 1;
        command->argv = words;
        while (*words && strcmp(*words, "---") != 0)
            words++;
        if (*words)
            *words++ = NULL;
    }
    return count;
}

int main(int argc, char **argv)
{
    struct command commands[MAX_COMMANDS];
    if (argc < 4 || strcmp(argv[2], "--") != 0) {
        fprintf(stderr, "usage: latency TURNS -- COMMAND ARG... [--- COMMAND ARG...]...\n");
        return 2;
    }
    long turns = strtol(argv[1], NULL, 10);
    int count = read_commands(argv + 3, commands);
    unsetenv("TERMITE_SOCKET");
    for (long turn = 0; turn < turns; turn++)
        for (int at = 0; at < count; at++)
            printf("%" PRIu64 "%c", run_once(&commands[at]), at + 1 < count ? ' ' : '\n');
    return 0;
}
