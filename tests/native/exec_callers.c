/* Call the function that the first argument names, in the process that the second one names: this
   one (here), a child (fork) or a child that borrows the memory (vfork). */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static int call(const char *function, char *file, char **argv)
{
    if (strcmp(function, "execve") == 0)
        return execve(file, argv, environ);
    if (strcmp(function, "execv") == 0)
        return execv(file, argv);
    if (strcmp(function, "execvp") == 0)
        return execvp(file, argv);
    if (strcmp(function, "execvpe") == 0)
        return execvpe(file, argv, environ);
    if (strcmp(function, "execl") == 0)
        return execl(file, argv[0], argv[1], argv[2], NULL);
    if (strcmp(function, "execlp") == 0)
        return execlp(file, argv[0], argv[1], argv[2], NULL);
    return execle(file, argv[0], argv[1], argv[2], NULL, environ);
}

static int report(int status)
{
    if (WIFSIGNALED(status))
        return 128 + WTERMSIG(status);
    return WEXITSTATUS(status);
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return 99;
    const char *function = argv[1], *from = argv[2];
    char *file = argv[3], **words = argv + 4;
    pid_t pid;
    int status, failure;
    if (strncmp(function, "posix_spawn", 11) == 0) {
        if (function[11] == 'p')
            failure = posix_spawnp(&pid, file, NULL, NULL, words, environ);
        else
            failure = posix_spawn(&pid, file, NULL, NULL, words, environ);
        if (failure) {
            printf("failed: %s\n", strerror(failure));
            return 98;
        }
    } else {
        pid = strcmp(from, "here") == 0 ? 0 : strcmp(from, "fork") == 0 ? fork() : vfork();
        if (pid == 0) {
            call(function, file, words);
            dprintf(1, "failed: %s\n", strerror(errno));
            _exit(98);
        }
    }
    waitpid(pid, &status, 0);
    return report(status);
}
