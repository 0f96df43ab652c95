/* Ask how the job has ended, after the master has gone without a word about that.
 *
 * A master writes a plan before it changes the first of a job's files. If there is no plan of this
 * job, the job has changed nothing. Otherwise `termite-redo`, which stands beside this program,
 * finishes the plan and prints the records of an exit. */
#include "../launcher.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define STAGING "/.termite-staging"

enum { TOKEN_BYTES = 8, FIRST_FD = 3 };

static unsigned char token[TOKEN_BYTES];
static char token_text[2 * TOKEN_BYTES + 1]; /* empty: there is none */
static char root[PATH_MAX];                  /* empty: it cannot be told */

const char *redo_token(const char *socket_path)
{
    const char *slash = strrchr(socket_path, '/');
    size_t length = slash ? (size_t)(slash - socket_path) : 0;
    if (getrandom(token, sizeof token, GRND_NONBLOCK) != sizeof token)
        return "";
    for (size_t i = 0; i < sizeof token; i++)
        snprintf(token_text + 2 * i, 3, "%02x", token[i]);
    if (length < sizeof root - sizeof STAGING) {
        memcpy(root, slash ? socket_path : ".", slash ? length : 1);
        if (slash == socket_path)
            root[0] = '\0';
    }
    return token_text;
}

/* Whether the file has our token, or may have it. */
static bool may_name_us(int directory, const char *name)
{
    struct stat st;
    int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return errno != ENOENT;
    bool found = true;
    if (fstat(fd, &st) == 0 && (st.st_uid != geteuid() || !S_ISREG(st.st_mode) || st.st_size == 0)) {
        found = false;
    } else if (st.st_size < SSIZE_MAX) {
        size_t size = (size_t)st.st_size, length = 0;
        char *bytes = malloc(size);
        ssize_t n = 0;
        while (bytes && length < size && (n = read(fd, bytes + length, size - length)) > 0)
            length += (size_t)n;
        if (bytes && n >= 0)
            found = memmem(bytes, length, token, sizeof token) != NULL;
        free(bytes);
    }
    close(fd);
    return found;
}

static bool is_planned(void)
{
    char path[PATH_MAX + sizeof STAGING];
    struct stat st;
    if (!*token_text)
        return false;
    snprintf(path, sizeof path, "%s" STAGING, root);
    DIR *directory = opendir(path);
    if (!directory)
        return errno != ENOENT && errno != ENOTDIR;
    bool found = false;
    struct dirent *entry;
    if (fstat(dirfd(directory), &st) != 0 || st.st_uid == geteuid())
        while (!found && (entry = readdir(directory)))
            found = strncmp(entry->d_name, "plan-", 5) == 0 && may_name_us(dirfd(directory), entry->d_name);
    closedir(directory);
    return found;
}

/* The program beside this one. */
static bool find_program(char path[PATH_MAX])
{
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX - sizeof "termite-redo");
    if (length <= 0)
        return false;
    path[length] = '\0';
    char *slash = strrchr(path, '/');
    if (!slash)
        return false;
    strcpy(slash + 1, "termite-redo");
    return true;
}

/* In the child. Nothing of the command's surroundings may change what is written to the tree. */
static _Noreturn void become_redo(int output)
{
    static char program[PATH_MAX], directory[PATH_MAX];
    static char *environment[] = {"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", NULL};
    char *argv[] = {"termite-redo", directory, token_text, NULL};
    sigset_t all;
    sigfillset(&all);
    change_mask(SIG_BLOCK, &all, NULL); /* Ctrl-C must not end it half-way */
    int null = open("/dev/null", O_RDWR);
    if (!find_program(program) || !realpath(*root ? root : "/", directory) || null < 0 || chdir("/") != 0)
        _exit(EXIT_FAILED);
    dup2(null, STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    for (int fd = FIRST_FD, most = (int)sysconf(_SC_OPEN_MAX); fd < most && fd < 65536; fd++)
        close(fd);
    umask(077);
    execve(program, argv, environment);
    dprintf(STDERR_FILENO, "termite: %s: %s\n", program, failure_text(errno));
    _exit(EXIT_FAILED);
}

static size_t read_all(int fd, char *bytes, size_t size)
{
    size_t length = 0;
    while (length < size) {
        ssize_t n = read(fd, bytes + length, size - length);
        if (n == 0 || (n < 0 && errno != EINTR))
            break;
        if (n > 0)
            length += (size_t)n;
    }
    return length;
}

enum redo_answer ask_plan(char *records, size_t size, size_t *length)
{
    int ends[2], status = -1;
    if (!is_planned())
        return REDO_ABSENT;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return REDO_FAILED;
    pid_t child = fork();
    if (child == 0)
        become_redo(ends[1]);
    close(ends[1]);
    *length = child > 0 ? read_all(ends[0], records, size) : 0;
    close(ends[0]);
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (child < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0 || *length == 0)
        return REDO_FAILED;
    return *length == sizeof "absent=1" && memcmp(records, "absent=1", sizeof "absent=1") == 0 ? REDO_ABSENT : REDO_ENDED;
}
