/* Run the command on this machine, in place of this process.
 *
 * The environment is the build tool's, which may have our preload library in it. The library stays
 * in it only if the verdict says Recurse. */
#include "launcher.h"
#include "../shared/ld_preload.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

const char *preload_library(void)
{
    const char *library = getenv("TERMITE_PRELOAD");
    return library && *library ? library : NULL;
}

/* Put our library in front of the user's entries in LD_PRELOAD, or take it out. Return false if
 * there is no memory. */
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

/* Change the environment as the verdict asks. `is_shell`: make has called us as MAKE_SHELL. The
 * makes below it obey that name too as long as they see it. */
static void prepare_environment(bool is_shell, const struct local_run *run)
{
    const char *library = preload_library();
    if (library)
        (void)set_preload(library, run->recurse);
    if (!run->recurse) {
        unsetenv("TERMITE_PRELOAD");
        unsetenv("TERMITE_LAUNCHER");
        unsetenv("TERMITE_BUILD_SOCKET");
        unsetenv("TERMITE_BUILD");
    }
    if (is_shell) {
        unsetenv("TERMITE_SHELL");
        if (!run->recurse)
            unsetenv("MAKE_SHELL");
    }
    for (char **entry = run->set; entry && *entry; entry++)
        putenv(*entry);
}

/* Execute the command. If that fails, print what the build tool would have printed, and exit as a
 * shell does. */
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

bool is_switched_off(void)
{
    const char *termite = getenv("TERMITE");
    return termite && strcmp(termite, "off") == 0;
}

void check_may_run_here(const struct command *command, const char *reason, const char *detail)
{
    warn_of_settings();
    const char *local = getenv("TERMITE_LOCAL");
    if (!local || strcmp(local, "never") != 0)
        return;
    if (!is_startable(command->exe, command->search))
        return; /* it fails with the words and the code of any command that does not exist */
    dprintf(STDERR_FILENO, "termite: %s%s; TERMITE_LOCAL=never forbids running the command on this machine: %s\n", reason,
            detail, command->argv[0]);
    _exit(EXIT_NOWHERE);
}
