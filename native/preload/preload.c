/* Make a build tool hand its commands to the launcher, with its own shell and flags:
 * libtermite-exec.so.
 *
 * The library acts only in the tool's own process. There it turns each command that the tool starts
 * into a call of the launcher: a posix_spawn, or an exec in a forked child. An exec in the process
 * that loaded the library is the tool executing itself again, which keeps the library. If a file
 * cannot be executed, the real call follows, and the tool reports the error in its own words.
 *
 * A vfork child shares the parent's memory and must not allocate. Everything that is built there
 * lives on the stack, and the real functions are looked up in the constructor.
 * docs/develop/protocol.md describes the interface under "Preload". */
#include "../shared/ld_preload.h"
#include "../shared/program_head.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

extern char **environ;

typedef int spawn_function(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,
                           char *const[], char *const[]);
typedef int exec_function(const char *, char *const[], char *const[]);

static spawn_function *real_posix_spawn, *real_posix_spawnp;
static exec_function *real_execve, *real_execvpe;

static bool active;
static pid_t tool_pid;
static char launcher[PATH_MAX], preload_option[NAME_MAX + 16];
static char ld_preload[2 * PATH_MAX]; /* LD_PRELOAD=..., for when the tool executes itself */

enum { WORDS_IN_FRONT = 5 };

/* -- set-up -------------------------------------------------------------------------------------------------------- */

/* Return whether `name` is one of the words in `list`, which colons or blanks separate. */
static bool is_listed(const char *list, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = list; *at;) {
        size_t word = strcspn(at, ": ");
        if (word == length && memcmp(at, name, length) == 0)
            return true;
        at += word + (at[word] != '\0');
    }
    return false;
}

static bool is_build_tool(const char *name)
{
    const char *more = getenv("TERMITE_PRELOAD_TOOLS");
    return is_listed("make:gmake:bmake:pmake:remake:ninja:ninja-build:samu:just:dune", name) || (more && is_listed(more, name));
}

/* Take the library out of the environment, so that the tool's commands do not load it. Keep it in
 * `ld_preload`, for when the tool executes itself. Return false if it is not in LD_PRELOAD. */
static bool leave_environment(const char *library)
{
    const char *list = getenv("LD_PRELOAD");
    if (!list || strlen(list) + strlen(library) + 13 > sizeof ld_preload)
        return false;
    char users[strlen(list) + 1];
    if (ld_preload_without(users, list, library) == 0) {
        snprintf(ld_preload, sizeof ld_preload, "LD_PRELOAD=%s", library);
        return unsetenv("LD_PRELOAD") == 0;
    }
    snprintf(ld_preload, sizeof ld_preload, "LD_PRELOAD=%s:%s", library, users);
    return setenv("LD_PRELOAD", users, 1) == 0;
}

__attribute__((constructor)) static void set_up(void)
{
    real_posix_spawn = (spawn_function *)dlsym(RTLD_NEXT, "posix_spawn");
    real_posix_spawnp = (spawn_function *)dlsym(RTLD_NEXT, "posix_spawnp");
    real_execve = (exec_function *)dlsym(RTLD_NEXT, "execve");
    real_execvpe = (exec_function *)dlsym(RTLD_NEXT, "execvpe");
    const char *tool = program_invocation_short_name;
    const char *library = getenv("TERMITE_PRELOAD"), *program = getenv("TERMITE_LAUNCHER");
    const char *termite = getenv("TERMITE");
    if (termite && strcmp(termite, "off") == 0) { /* the tool and its commands are as if there was no library */
        if (library)
            (void)leave_environment(library);
        return;
    }
    if (!library || !program || strlen(program) >= sizeof launcher || strlen(tool) > NAME_MAX || !is_build_tool(tool))
        return;
    strcpy(launcher, program);
    snprintf(preload_option, sizeof preload_option, "--preload=%s", tool);
    tool_pid = (pid_t)syscall(SYS_getpid);
    active = leave_environment(library);
}

/* -- executable files ---------------------------------------------------------------------------------------------- */

/* Return whether `path` is an ELF program of this machine or a script with "#!". The tool itself
 * knows what to do with any other file. */
static bool is_executable(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode) || access(path, X_OK) != 0)
        return false;
    char head[PROGRAM_HEAD_BYTES];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return true; /* it may be executed, but not read */
    ssize_t n = read(fd, head, sizeof head);
    close(fd);
    size_t length;
    return n > 0 && (script_interpreter(head, (size_t)n, &length) || is_elf_head(head, (size_t)n, (uint64_t)st.st_size));
}

/* Write the path of the first executable in PATH that is called `file` to `found`. Return false if
 * there is none, or if the real call must search itself. */
static bool find_executable(const char *file, char found[PATH_MAX])
{
    if (strchr(file, '/'))
        return snprintf(found, PATH_MAX, "%s", file) < PATH_MAX && is_executable(found);
    const char *path = getenv("PATH");
    if (!path || !*file)
        return false;
    for (;; path++) {
        int length = (int)strcspn(path, ":");
        const char *slash = length > 0 ? "/" : "";
        if (snprintf(found, PATH_MAX, "%.*s%s%s", length, path, slash, file) >= PATH_MAX)
            return false;
        if (access(found, F_OK) == 0 && is_executable(found))
            return true;
        path += length;
        if (!*path)
            return false;
    }
}

/* -- calling the launcher ------------------------------------------------------------------------------------------ */

static size_t count_words(char *const argv[])
{
    size_t count = 0;
    while (argv[count])
        count++;
    return count;
}

/* Write --exe=PATH to `exe_option`, and the launcher's argv to `words`, which has WORDS_IN_FRONT
 * more words than `argv`. */
static void build_call(const char *path, char *const argv[], char *exe_option, char **words)
{
    memcpy(exe_option, "--exe=", 6);
    strcpy(exe_option + 6, path);
    char *const front[WORDS_IN_FRONT] = {launcher, preload_option, exe_option, "--search=0", "--"};
    memcpy(words, front, sizeof front);
    memcpy(words + WORDS_IN_FRONT, argv, (count_words(argv) + 1) * sizeof *argv);
}

/* Return whether the user forbids the real call, now that the launcher could not be started. Print
 * a line if so. Keep errno. */
static bool is_forbidden_here(char *const envp[])
{
    static const char said[] =
        "termite: cannot start the launcher, and TERMITE_LOCAL=never forbids running the command on this machine\n";
    int failure = errno;
    while (*envp && strcmp(*envp, "TERMITE_LOCAL=never") != 0)
        envp++;
    if (*envp)
        (void)!write(STDERR_FILENO, said, sizeof said - 1);
    errno = failure;
    return *envp != NULL;
}

/* Start the launcher with posix_spawn. Return 0, or the number of the error. */
static int spawn_launcher(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                          const posix_spawnattr_t *attributes, char *const argv[], char *const envp[])
{
    char exe_option[strlen(path) + 7];
    char *words[count_words(argv) + 1 + WORDS_IN_FRONT];
    build_call(path, argv, exe_option, words);
    return real_posix_spawn(pid, launcher, actions, attributes, words, envp);
}

/* Start the launcher. If that fails and the user does not forbid it, start `file` by the `real`
 * call. */
static int spawn_by_launcher(spawn_function *real, pid_t *pid, const char *file, const char *path,
                             const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
                             char *const argv[], char *const envp[])
{
    int failure = spawn_launcher(pid, path, actions, attributes, argv, envp);
    return failure == 0 || is_forbidden_here(envp) ? failure : real(pid, file, actions, attributes, argv, envp);
}

/* Become the launcher. Return if that fails, with errno. */
static void exec_launcher(const char *path, char *const argv[], char *const envp[])
{
    char exe_option[strlen(path) + 7];
    char *words[count_words(argv) + 1 + WORDS_IN_FRONT];
    build_call(path, argv, exe_option, words);
    real_execve(launcher, words, envp);
}

static bool is_tool_itself(void)
{
    return (pid_t)syscall(SYS_getpid) == tool_pid;
}

/* Execute the tool itself again, with the library in LD_PRELOAD. */
static int exec_again(exec_function *real, const char *file, char *const argv[], char *const envp[])
{
    char *with_us[count_words(envp) + 2];
    size_t count = 0;
    with_us[count++] = ld_preload;
    for (char *const *entry = envp; *entry; entry++)
        if (strncmp(*entry, "LD_PRELOAD=", 11) != 0)
            with_us[count++] = *entry;
    with_us[count] = NULL;
    return real(file, argv, with_us);
}

/* Execute `file` in the way that this process needs: again, by the launcher, or by the `real`
 * call. */
static int wrap_exec(exec_function *real, const char *file, char *const argv[], char *const envp[])
{
    char path[PATH_MAX];
    if (!active || !argv || !argv[0] || !envp)
        return real(file, argv, envp);
    if (is_tool_itself())
        return exec_again(real, file, argv, envp);
    if (real == real_execvpe ? find_executable(file, path) : is_executable(file)) {
        exec_launcher(real == real_execvpe ? path : file, argv, envp);
        if (is_forbidden_here(envp))
            return -1;
    }
    return real(file, argv, envp);
}

/* -- the replaced functions ---------------------------------------------------------------------------------------- */

#define EXPORT __attribute__((visibility("default")))

EXPORT int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                       const posix_spawnattr_t *attributes, char *const argv[], char *const envp[])
{
    if (active && argv[0] && envp && is_executable(path))
        return spawn_by_launcher(real_posix_spawn, pid, path, path, actions, attributes, argv, envp);
    return real_posix_spawn(pid, path, actions, attributes, argv, envp);
}

EXPORT int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
                        const posix_spawnattr_t *attributes, char *const argv[], char *const envp[])
{
    char path[PATH_MAX];
    if (active && argv[0] && envp && find_executable(file, path))
        return spawn_by_launcher(real_posix_spawnp, pid, file, path, actions, attributes, argv, envp);
    return real_posix_spawnp(pid, file, actions, attributes, argv, envp);
}

EXPORT int execve(const char *path, char *const argv[], char *const envp[])
{
    return wrap_exec(real_execve, path, argv, envp);
}

EXPORT int execv(const char *path, char *const argv[])
{
    return wrap_exec(real_execve, path, argv, environ);
}

EXPORT int execvpe(const char *file, char *const argv[], char *const envp[])
{
    return wrap_exec(real_execvpe, file, argv, envp);
}

EXPORT int execvp(const char *file, char *const argv[])
{
    return wrap_exec(real_execvpe, file, argv, environ);
}

/* Collect the words of execl* in an array, up to and with the NULL. `rest` keeps the arguments
 * behind it. */
#define COLLECT(argv, first, rest)                                                                                     \
    size_t count = 1;                                                                                                  \
    va_list counting;                                                                                                  \
    va_copy(counting, rest);                                                                                           \
    while (va_arg(counting, char *))                                                                                   \
        count++;                                                                                                       \
    va_end(counting);                                                                                                  \
    char *argv[count + 1];                                                                                             \
    argv[0] = (char *)(first);                                                                                         \
    for (size_t i = 1; i <= count; i++)                                                                                \
    argv[i] = va_arg(rest, char *)

EXPORT int execl(const char *path, const char *first, ...)
{
    va_list rest;
    va_start(rest, first);
    COLLECT(argv, first, rest);
    va_end(rest);
    return wrap_exec(real_execve, path, argv, environ);
}

EXPORT int execlp(const char *file, const char *first, ...)
{
    va_list rest;
    va_start(rest, first);
    COLLECT(argv, first, rest);
    va_end(rest);
    return wrap_exec(real_execvpe, file, argv, environ);
}

EXPORT int execle(const char *path, const char *first, ...)
{
    va_list rest;
    va_start(rest, first);
    COLLECT(argv, first, rest);
    char *const *envp = va_arg(rest, char *const *);
    va_end(rest);
    return wrap_exec(real_execve, path, argv, envp);
}
