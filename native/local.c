/* The command here: in place of this process, or below it. */
#include "launcher.h"
#include "ld_preload.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

const char *preload_library(void)
{
    const char *library = getenv("TERMITE_PRELOAD");
    return library && *library ? library : NULL;
}

/* Our library in front of what the user has preloaded, or out of it. False: no memory. */
static bool set_preload(const char *library, bool wanted)
{
    const char *list = getenv("LD_PRELOAD");
    size_t library_length = strlen(library);
    char *text = malloc(library_length + 1 + (list ? strlen(list) : 0) + 1);
    if (!text)
        return false;
    char *users = text + library_length + 1;
    size_t users_length = list ? ld_preload_without(users, list, library) : 0;
    int failed = 0;
    if (wanted) {
        memcpy(text, library, library_length);
        text[library_length] = users_length > 0 ? ':' : '\0';
        failed = setenv("LD_PRELOAD", text, 1);
    } else if (users_length > 0) {
        failed = setenv("LD_PRELOAD", users, 1);
    } else {
        unsetenv("LD_PRELOAD");
    }
    free(text);
    return !failed;
}

/* `is_shell`: called by a make with MAKE_SHELL, whose makes below obey it too as long as they see it. */
static void prepare_environment(bool is_shell, const struct local_run *run)
{
    const char *library = preload_library();
    if (library)
        (void)set_preload(library, run->recurse);
    if (!run->recurse) {
        unsetenv("TERMITE_PRELOAD");
        unsetenv("TERMITE_LAUNCHER");
    }
    if (is_shell) {
        unsetenv("TERMITE_SHELL");
        if (!run->recurse)
            unsetenv("MAKE_SHELL");
    }
    for (char **entry = run->set; entry && *entry; entry++)
        putenv(*entry);
}

/* In the words of whoever would have failed without us, with a shell's exit codes. */
static _Noreturn void execute(const struct command *command)
{
    if (command->search)
        search_and_execute(command->exe, command->argv);
    else
        execve(command->exe, command->argv, environ);
    int failure = errno;
    const char *speaker = *command->tool ? command->tool : "termite";
    dprintf(STDERR_FILENO, "%s: %s: %s\n", speaker, command->exe, failure_text(failure));
    _exit(failure == ENOENT || failure == ENOTDIR ? 127 : 126);
}

_Noreturn void exec_command(const struct command *command, const struct local_run *run)
{
    prepare_environment(strcmp(command->how, "shell") == 0, run);
    execute(command);
}

static volatile sig_atomic_t child;

/* make and ninja stop a job by killing its process, which is us. */
static void pass_on(int signal)
{
    int saved = errno;
    if (child > 0)
        kill(child, signal);
    errno = saved;
}

struct manner {
    int signal;
    void (*handler)(int);
    struct sigaction before;
};

/* What somebody has made us ignore stays ignored, except SIGCHLD: that would reap the command for us. */
static void change_manner(struct manner *manner)
{
    struct sigaction action = {.sa_handler = manner->handler, .sa_flags = SA_RESTART};
    sigaction(manner->signal, NULL, &manner->before);
    if (manner->before.sa_handler != SIG_IGN || manner->signal == SIGCHLD)
        sigaction(manner->signal, &action, NULL);
}

/* The keyboard's signals reach the whole process group: the command itself decides what they mean, as with a shell. */
int run_command(const struct command *command, const struct local_run *run)
{
    struct manner manners[] = {
        {.signal = SIGINT, .handler = SIG_IGN},   {.signal = SIGQUIT, .handler = SIG_IGN},
        {.signal = SIGTERM, .handler = pass_on},  {.signal = SIGHUP, .handler = pass_on},
        {.signal = SIGCHLD, .handler = SIG_DFL},
    };
    const size_t count = sizeof manners / sizeof *manners;
    sigset_t all, mask;
    sigfillset(&all);
    change_mask(SIG_BLOCK, &all, &mask);
    for (size_t i = 0; i < count; i++)
        change_manner(&manners[i]);
    pid_t pid = fork();
    if (pid <= 0) {
        for (size_t i = 0; i < count; i++)
            sigaction(manners[i].signal, &manners[i].before, NULL);
        change_mask(SIG_SETMASK, &mask, NULL);
        exec_command(command, run); /* also where fork failed: better without a report than not at all */
    }
    child = pid;
    change_mask(SIG_SETMASK, &mask, NULL);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    child = 0;
    return status;
}

_Noreturn void end_by_signal(int signal)
{
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); /* the command has dumped its core, if it was to */
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigaction(signal, &action, NULL);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    change_mask(SIG_UNBLOCK, &set, NULL);
    kill(getpid(), signal);
    _exit(128 + signal); /* a signal that does not kill */
}

_Noreturn void end_as_command(int wait_status)
{
    if (WIFSIGNALED(wait_status))
        end_by_signal(WTERMSIG(wait_status));
    _exit(WEXITSTATUS(wait_status));
}
