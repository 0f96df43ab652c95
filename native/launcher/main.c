/* termite, termite-shell: hands one command to the master of this tree, and ends as the command did.
 *
 * It decides nothing, and it must never be why a build fails: without a master, or where anything is odd before the
 * master has said a word, it becomes the command itself, unless TERMITE_LOCAL=never forbids that. Protocol:
 * docs/develop/protocol.md, "Launcher". */
#include "launcher.h"
#include "../shared/ld_preload.h"
#include "../shared/records.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

extern char **environ;

#define SOCKET_NAME ".termite-socket"

static const char USAGE[] =
    "usage: termite COMMAND [ARGUMENT...]\n"
    "\n"
    "Runs COMMAND through the termite master of this directory tree (the nearest " SOCKET_NAME " upwards, or\n"
    "$TERMITE_SOCKET), on another machine if its rules say so. Without a master, COMMAND is simply executed;\n"
    "with TERMITE_LOCAL=never it ends with exit code 103 instead.\n"
    "It reads, writes and ends just as COMMAND itself would.\n"
    "\n"
    "termite-shell ARGUMENT... does the same with $TERMITE_SHELL (or /bin/sh) as the command.\n"
    "\n"
    "  --help      this text\n"
    "  --version   the version\n"
    "  --WORD=...  a note for the master's plugins (--cmake=compile --object=x.o)\n"
    "  --          the command follows\n";

/* -- finding the master -------------------------------------------------------------------------------------------- */

/* A socket of somebody else would get our environment and run our command: not a master of ours. */
static bool is_our_socket(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_uid == geteuid();
}

/* Writes the path of the nearest socket upwards from `directory` into `path`. */
static bool find_socket(const char *directory, char path[PATH_MAX])
{
    size_t length = strlen(directory);
    if (length + sizeof "/" SOCKET_NAME > PATH_MAX)
        return false;
    memcpy(path, directory, length);
    for (;;) {
        while (length > 0 && path[length - 1] == '/')
            length--;
        memcpy(path + length, "/" SOCKET_NAME, sizeof "/" SOCKET_NAME);
        if (is_our_socket(path))
            return true;
        if (length == 0)
            return false;
        while (length > 0 && path[length - 1] != '/')
            length--;
    }
}

/* A path longer than sun_path is reached through its directory's fd. */
static bool fill_address(const char *path, struct sockaddr_un *address, int *directory)
{
    *directory = -1;
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) < sizeof address->sun_path) {
        strcpy(address->sun_path, path);
        return true;
    }
    const char *slash = strrchr(path, '/');
    char parent[PATH_MAX];
    if (!slash || (size_t)(slash - path) >= sizeof parent)
        return false;
    memcpy(parent, path, (size_t)(slash - path));
    parent[slash - path] = '\0';
    *directory = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (*directory < 0)
        return false;
    int n = snprintf(address->sun_path, sizeof address->sun_path, "/proc/self/fd/%d%s", *directory, slash);
    return n > 0 && (size_t)n < sizeof address->sun_path;
}

/* Any fd below 3 would be taken for the command's stdin, stdout or stderr. */
static int above_stdio(int fd)
{
    if (fd < 0 || fd > 2)
        return fd;
    int above = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    close(fd);
    return above;
}

/* A master that does not even accept within this time is no master. */
enum { DEAF_S = 30 };

static int connect_master(const char *path)
{
    struct sockaddr_un address;
    int directory;
    int fd = -1;
    if (fill_address(path, &address, &directory))
        fd = above_stdio(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (fd >= 0) {
        struct timeval patience = {.tv_sec = DEAF_S};
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
            close(fd);
            fd = -1;
        }
    }
    if (directory >= 0)
        close(directory);
    return fd;
}

/* Where the master of `cwd` listens, or NULL. An empty $TERMITE_SOCKET means: nowhere. */
static const char *find_master(const char *cwd, char path[PATH_MAX])
{
    const char *named = getenv("TERMITE_SOCKET");
    if (named)
        return *named ? named : NULL;
    return find_socket(cwd, path) ? path : NULL;
}

/* -- saying what to run -------------------------------------------------------------------------------------------- */

static bool is_one_file(int one, int other)
{
    struct stat a, b;
    return fstat(one, &a) == 0 && fstat(other, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static void add_environment(struct buffer *invoke)
{
    const char *library = preload_library();
    for (char **entry = environ; *entry; entry++) {
        if (strncmp(*entry, "TERMITE_PRELOAD=", 16) == 0 || strncmp(*entry, "TERMITE_LAUNCHER=", 17) == 0)
            continue;
        if (!library || strncmp(*entry, "LD_PRELOAD=", 11) != 0) {
            record_add(invoke, "env", *entry);
            continue;
        }
        char users[strlen(*entry) + 1];
        memcpy(users, *entry, 11);
        if (ld_preload_without(users + 11, *entry + 11, library) > 0)
            record_add(invoke, "env", users);
    }
}

/* The value of `--name=value`, or NULL where `word` is another option. */
static const char *option(const char *word, const char *name)
{
    size_t length = strlen(name);
    return strncmp(word, name, length) == 0 ? word + length : NULL;
}

/* What a front end says about the command, for the master's plugins: any `--name=value` that is no option of ours. */
static bool is_note(const char *word)
{
    const char *equals = strchr(word, '=');
    return strncmp(word, "--", 2) == 0 && equals && equals > word + 2 && !option(word, "--preload=") &&
           !option(word, "--exe=") && !option(word, "--search=");
}

static void add_invocation(struct buffer *invoke, const struct command *command, const char *cwd)
{
    mode_t mask = umask(0);
    umask(mask);
    char octal[16];
    snprintf(octal, sizeof octal, "%03o", (unsigned)mask);

    record_add(invoke, "v", "3");
    record_add(invoke, "how", command->how);
    record_add(invoke, "tool", command->tool);
    record_add(invoke, "exe", command->exe);
    record_add(invoke, "search", command->search ? "1" : "0");
    record_add(invoke, "cwd", cwd);
    vantage_describe(invoke);
    record_add(invoke, "umask", octal);
    stdin_describe(invoke);
    record_add(invoke, "merge", is_one_file(STDOUT_FILENO, STDERR_FILENO) ? "1" : "0");
    record_add_number(invoke, "pid", getpid());
    for (char **word = command->notes; word && word < command->argv; word++)
        if (is_note(*word))
            record_add(invoke, "note", *word + 2);
    for (char **word = command->argv; *word; word++)
        record_add(invoke, "arg", *word);
    add_environment(invoke);
}

static bool make_invocation(struct buffer *frame, const struct command *command, const char *cwd)
{
    buffer_add(frame, "\0\0\0\0I", 5);
    add_invocation(frame, command, cwd);
    if (frame->failed || frame->length - 5 > UINT32_MAX)
        return false;
    uint32_t length = (uint32_t)(frame->length - 5);
    for (int i = 0; i < 4; i++)
        frame->bytes[i] = (char)(length >> (8 * i));
    return true;
}

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

/* -- the command line ---------------------------------------------------------------------------------------------- */

static _Noreturn void refuse(const char *message, const char *word)
{
    dprintf(STDERR_FILENO, "termite: %s%s (see termite --help)\n", message, word);
    exit(EXIT_FAILED);
}

static void parse_shell(char **argv, struct command *command)
{
    const char *shell = getenv("TERMITE_SHELL");
    command->how = "shell";
    command->exe = shell && *shell ? shell : "/bin/sh";
    command->search = !strchr(command->exe, '/');
    argv[0] = (char *)command->exe;
    command->argv = argv;
}

static void parse_termite(char **argv, struct command *command)
{
    const char *value;
    char **word = argv + 1;
    for (; *word && (*word)[0] == '-'; word++) {
        if (strcmp(*word, "--") == 0) {
            word++;
            break;
        }
        if (strcmp(*word, "--help") == 0) {
            write_whole(STDOUT_FILENO, USAGE, sizeof USAGE - 1);
            exit(0);
        } else if (strcmp(*word, "--version") == 0) {
            dprintf(STDOUT_FILENO, "termite %s\n", TERMITE_VERSION);
            exit(0);
        } else if ((value = option(*word, "--preload="))) {
            command->how = "preload";
            command->tool = value;
        } else if ((value = option(*word, "--exe="))) {
            command->exe = value;
        } else if ((value = option(*word, "--search="))) {
            command->search = strcmp(value, "0") != 0;
        } else if (!is_note(*word)) {
            refuse("no such option: ", *word);
        }
    }
    command->notes = argv + 1;
    if (!*word)
        refuse("no command given", "");
    command->argv = word;
    if (!command->exe)
        command->exe = *word;
}

static struct command parse(char **argv)
{
    struct command command = {.how = "direct", .tool = "", .search = true};
    const char *slash = strrchr(argv[0], '/');
    if (strcmp(slash ? slash + 1 : argv[0], "termite-shell") == 0)
        parse_shell(argv, &command);
    else
        parse_termite(argv, &command);
    return command;
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
    struct command command = parse(argv);
    char *cwd = can_be_heard() ? getcwd(NULL, 0) : NULL;
    char socket_path[PATH_MAX];
    const char *path = cwd ? find_master(cwd, socket_path) : NULL;
    int master = path ? invoke_master(path, &command, cwd) : -1;
    if (master >= 0)
        relay(master, &command);
    run_here(&command, cwd, path);
}
