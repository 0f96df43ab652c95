/* Ask how the job has ended, after the master has gone without a word about that.
 *
 * A master writes a plan before it changes the first of a job's files. If there is no plan of this
 * job, the job has changed nothing. Otherwise `termite-redo`, which stands beside this program,
 * finishes the plan and prints the fields of an exit. */
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
#include <time.h>
#include <unistd.h>

#define STAGING "/.termite-staging"

enum { TOKEN_BYTES = 8, FIRST_FD = 3, MAX_LINKS = 40 };

static unsigned char token[TOKEN_BYTES];
static char token_text[2 * TOKEN_BYTES + 1];
static char place[2 * PATH_MAX]; /* of the master's socket; behind `find_root`, of the top of its tree */

/* Make a token that no other launcher of this machine makes, though the kernel has no random bits
 * yet, or forbids the call. Nobody has to guess it: the plans are this user's own. */
static void make_own_token(void)
{
    struct timespec now = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t moment = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    uint64_t number = moment ^ (uint64_t)getpid() << 40;
    memcpy(token, &number, sizeof token);
}

const char *redo_token(const char *socket_path)
{
    if (getrandom(token, sizeof token, GRND_NONBLOCK) != sizeof token)
        make_own_token();
    for (size_t i = 0; i < sizeof token; i++)
        snprintf(token_text + 2 * i, 3, "%02x", token[i]);
    if (strlen(socket_path) < sizeof place - sizeof STAGING)
        strcpy(place, socket_path);
    return token_text;
}

/* Turn the path of the socket into that of its directory, which is the top of the tree. A socket
 * that the user has named may be a symlink. Return false if the directory is unknown. */
static bool find_root(void)
{
    char target[PATH_MAX];
    for (int links = 0; *place && links < MAX_LINKS; links++) {
        char *slash = strrchr(place, '/');
        ssize_t length = readlink(place, target, sizeof target);
        if (length < 0 && errno != EINVAL && errno != ENOENT)
            return false;
        if (length < 0) { /* it is no link, or has gone with its master */
            strcpy(slash ? slash : place, slash ? "" : ".");
            return true;
        }
        size_t kept = *target == '/' || !slash ? 0 : (size_t)(slash + 1 - place);
        if (kept + (size_t)length >= sizeof place - sizeof STAGING)
            return false;
        memcpy(place + kept, target, (size_t)length);
        place[kept + (size_t)length] = '\0';
    }
    return false;
}

/* Return true if the file has our token, or may have it. */
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

/* Return true if a plan has our token, or may have it. An error is no absence. */
static bool is_planned(void)
{
    char path[sizeof place + sizeof STAGING];
    struct stat st;
    snprintf(path, sizeof path, "%s" STAGING, place);
    DIR *directory = opendir(path);
    if (!directory)
        return errno != ENOENT && errno != ENOTDIR;
    bool found = false;
    struct dirent *entry = NULL;
    if (fstat(dirfd(directory), &st) != 0 || st.st_uid == geteuid()) {
        while (!found && (errno = 0, entry = readdir(directory)))
            found = strncmp(entry->d_name, "plan-", 5) == 0 && may_name_us(dirfd(directory), entry->d_name);
        found = found || (!entry && errno != 0);
    }
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
    if (!find_program(program) || !realpath(*place ? place : "/", directory) || null < 0 || chdir("/") != 0)
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

enum redo_answer ask_plan(char *fields, size_t size, size_t *length)
{
    int ends[2], status = -1;
    if (!find_root())
        return REDO_FAILED;
    if (!is_planned())
        return REDO_ABSENT;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return REDO_FAILED;
    pid_t child = fork();
    if (child == 0)
        become_redo(ends[1]);
    close(ends[1]);
    *length = child > 0 ? read_all(ends[0], fields, size) : 0;
    close(ends[0]);
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (child < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0 || *length == 0)
        return REDO_FAILED;
    return *length == sizeof "absent=1" && memcmp(fields, "absent=1", sizeof "absent=1") == 0 ? REDO_ABSENT : REDO_ENDED;
}
