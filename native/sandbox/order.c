/* Receive an order, the message with a job, and check each of its fields.
 *
 * Nothing of an order is trusted. Each value may come from the submitter's machine, so an unknown,
 * missing or repeated field refuses the whole job. docs/develop/protocol.md lists the fields. */
#include "sandbox.h"

#include <limits.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum { ORDER_BYTES = 64 * 1024 };
static const char FOLLOWS[] = "large=1";

/* -- the order ----------------------------------------------------------------------------------------------------- */

/* Take the descriptors out of the message. */
static void take_fds(struct msghdr *message, struct order *order)
{
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header))
        if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
            order->fd_count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            memcpy(order->fds, CMSG_DATA(header), order->fd_count * sizeof(int));
        }
}

/* Wait for the message and take its fields and descriptors. */
static void receive_message(int channel, struct order *order)
{
    char *room = buffer_reserve(&order->config, ORDER_BYTES);
    if (!room)
        fail_errno("cannot read the configuration", "");
    struct iovec text = {.iov_base = room, .iov_len = ORDER_BYTES};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(ORDER_FDS * sizeof(int))];
    } control;
    /* Not the whole room, which is rounded up: one descriptor more would fit into it. */
    struct msghdr message = {.msg_iov = &text,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = CMSG_LEN(ORDER_FDS * sizeof(int))};
    ssize_t length;
    do
        length = recvmsg(channel, &message, MSG_CMSG_CLOEXEC);
    while (length < 0 && errno == EINTR);
    if (length <= 0)
        _exit(0); /* the mirror does not need this sandbox any more */
    take_fds(&message, order);
    if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC) || order->fd_count < 2)
        fail("the configuration is incomplete");
    order->config.length = (size_t)length;
}

/* Read the fields from the third descriptor, if they are too large for the message. */
static void read_large(struct order *order)
{
    if (order->config.length != sizeof FOLLOWS || memcmp(order->config.bytes, FOLLOWS, sizeof FOLLOWS) != 0)
        return;
    order->config.length = 0;
    if (order->fd_count < 3 || !read_whole(order->fds[2], &order->config))
        fail_errno("cannot read the configuration", "");
    close(order->fds[2]);
    order->fd_count--;
    memmove(order->fds + 2, order->fds + 3, (ORDER_FDS - 3) * sizeof *order->fds);
}

void receive_order(int channel, struct order *order)
{
    *order = (struct order){0};
    receive_message(channel, order);
    read_large(order);
}

/* -- a job --------------------------------------------------------------------------------------------------------- */

enum field {
    MOUNT,
    LOWER,
    SCRATCH,
    CWD,
    EXE,
    USER,
    GROUP,
    LAST_NEEDED = GROUP,
    HOST_NAME,
    STDIN,
    STDIN_OFFSET,
    STDIN_CLOSED,
    KEEPS_ROOT,
    SEARCH,
    MASK,
    PROCESSES,
    FILE_BYTES,
    LIMIT_LIST,
    IGNORED,
    NICENESS,
    MEMORY,
    TERMINALS,
    ROWS,
    COLUMNS,
    WIDTH,
    HEIGHT,
    TRACE,
    FIELDS
};

/* Each field but `arg` and `env` has a line here. `base` is 0 for a text, else that of a number.
 * `most` is the largest number allowed. */
static const struct {
    const char *key;
    int base;
    unsigned long long most;
} KEYS[FIELDS] = {
    [MOUNT] = {.key = "mount"},
    [LOWER] = {.key = "lower"},
    [SCRATCH] = {.key = "scratch"},
    [CWD] = {.key = "cwd"},
    [EXE] = {.key = "exe"},
    [USER] = {"uid", 10, UINT_MAX - 1},
    [GROUP] = {"gid", 10, UINT_MAX - 1},
    [HOST_NAME] = {.key = "hostname"},
    [STDIN] = {.key = "stdin"},
    [STDIN_OFFSET] = {"stdin_offset", 10, LLONG_MAX},
    [STDIN_CLOSED] = {"stdin_closed", 10, 1},
    [KEEPS_ROOT] = {"root", 10, 1},
    [SEARCH] = {"search", 10, 1},
    [MASK] = {"umask", 8, 0777},
    [PROCESSES] = {"nproc", 10, ULLONG_MAX},
    [FILE_BYTES] = {"fsize", 10, ULLONG_MAX},
    [LIMIT_LIST] = {.key = "limits"},
    [IGNORED] = {"ignored", 10, INT_MAX},
    [NICENESS] = {"nice", 10, 19},
    [MEMORY] = {"memory", 10, ULLONG_MAX},
    [TERMINALS] = {"terminals", 10, ALL_TERMINALS},
    [ROWS] = {"rows", 10, UINT16_MAX},
    [COLUMNS] = {"columns", 10, UINT16_MAX},
    [WIDTH] = {"width", 10, UINT16_MAX},
    [HEIGHT] = {"height", 10, UINT16_MAX},
    [TRACE] = {"trace", 10, FOR_COMPILERS},
};

/* Report that the field `key` is invalid, and end this process. */
static _Noreturn void refuse_field(const char *key, const char *why)
{
    char text[128];
    snprintf(text, sizeof text, "the configuration's field '%.40s' %s", key, why);
    fail(text);
}

/* Note the value of a field. Refuse a second one of the same key: somebody may have put it into
 * the value of another field. */
static void note_field(char **given, const char *key, char *value)
{
    for (size_t i = 0; i < FIELDS; i++) {
        if (strcmp(key, KEYS[i].key) != 0)
            continue;
        if (given[i])
            refuse_field(key, "comes twice");
        given[i] = value;
        return;
    }
    refuse_field(key, "is unknown");
}

/* Return the number in a field, or `usual` if the field is absent. */
static unsigned long long number(char *const *given, enum field field, unsigned long long usual)
{
    const char *text = given[field];
    if (!text)
        return usual;
    unsigned long long value;
    if (!parse_number(text, KEYS[field].base, KEYS[field].most, &value))
        refuse_field(KEYS[field].key, "is a bad number");
    return value;
}

/* Return whether `parts` is a list of layers, which lie in the mount or beside it. A part may
 * begin with one "../", and has no other. None is empty or begins with a slash. A comma would end
 * the option of mount(2) in which they stand. */
static bool are_layers(const char *parts)
{
    if (strchr(parts, ','))
        return false;
    bool is_first = true;
    for (const char *name = parts; *name;) {
        size_t length = strcspn(name, "/:");
        if (is_first && length == 0)
            return false;
        if (length == 2 && memcmp(name, "..", 2) == 0 && !(is_first && name[2] == '/'))
            return false;
        is_first = name[length] == ':';
        name += length + (name[length] != '\0');
    }
    return true;
}

/* Parse a limit, and move *at behind it and `end`. "-" is no limit. */
static bool parse_limit(const char **at, char end, unsigned long long *limit)
{
    char digits[24];
    size_t length = strcspn(*at, ":,");
    if (length == 0 || length >= sizeof digits)
        return false;
    memcpy(digits, *at, length);
    digits[length] = '\0';
    *limit = RLIM_INFINITY;
    if (strcmp(digits, "-") != 0 && !parse_number(digits, 10, ULLONG_MAX, limit))
        return false;
    *at += length;
    if (end == ',' && **at == '\0')
        return true;
    bool is_end = **at == end && (*at)[1] != '\0';
    *at += is_end;
    return is_end;
}

bool for_each_limit(const char *limits, void (*act)(int resource, unsigned long long soft, unsigned long long hard))
{
    unsigned long long resource, soft, hard;
    for (const char *at = limits; *at;) {
        if (!parse_limit(&at, ':', &resource) || resource >= RLIM_NLIMITS || !parse_limit(&at, ':', &soft) ||
            !parse_limit(&at, ',', &hard))
            return false;
        act((int)resource, soft, hard);
    }
    return true;
}

/* Do nothing, because a list is only checked. */
static void ignore_limit(int resource, unsigned long long soft, unsigned long long hard)
{
    (void)resource, (void)soft, (void)hard;
}

/* Refuse fields that are missing, or that do not fit together. */
static void check_fields(char *const *given)
{
    for (int i = 0; i <= LAST_NEEDED; i++)
        if (!given[i])
            fail("the configuration is incomplete");
    for (int i = 0; i < FIELDS; i++)
        if ((i == MOUNT || i == SCRATCH || i == CWD) && given[i][0] != '/')
            refuse_field(KEYS[i].key, "is not an absolute path");
    if (!are_layers(given[LOWER]))
        refuse_field(KEYS[LOWER].key, "is no list of layers");
    if (given[LIMIT_LIST] && !for_each_limit(given[LIMIT_LIST], ignore_limit))
        refuse_field(KEYS[LIMIT_LIST].key, "is no list of limits");
    if (given[STDIN_OFFSET] && !given[STDIN])
        refuse_field(KEYS[STDIN_OFFSET].key, "has no stdin");
}

/* Return the number of fields. Each word of argv and env is a field, so an array of this length
 * is enough for either. */
static size_t count_fields(const struct buffer *config)
{
    size_t count = 0;
    for (size_t i = 0; i < config->length; i++)
        count += config->bytes[i] == '\0';
    return count;
}

/* Fill the job with the checked fields. */
static void fill(struct job *job, char *const *given)
{
    job->mount = given[MOUNT];
    job->lower = given[LOWER];
    job->scratch = given[SCRATCH];
    job->cwd = given[CWD];
    job->exe = given[EXE];
    job->hostname = given[HOST_NAME];
    job->standard_input = given[STDIN];
    job->uid = (long)number(given, USER, 0);
    job->gid = (long)number(given, GROUP, 0);
    job->stdin_offset = (long long)number(given, STDIN_OFFSET, 0);
    job->no_stdin = number(given, STDIN_CLOSED, 0);
    job->keeps_root = number(given, KEEPS_ROOT, 0);
    job->search = number(given, SEARCH, 0);
    job->mask = (mode_t)number(given, MASK, 022);
    job->processes = number(given, PROCESSES, 0);
    job->file_bytes = number(given, FILE_BYTES, 0);
    job->limits = given[LIMIT_LIST] ? given[LIMIT_LIST] : "";
    job->ignored = number(given, IGNORED, 0);
    job->niceness = (int)number(given, NICENESS, 0);
    job->memory_bytes = number(given, MEMORY, 0);
    job->terminals = (unsigned)number(given, TERMINALS, 0);
    job->trace = (unsigned)number(given, TRACE, UNTRACED);
    for (int i = 0; i < 4; i++)
        job->window[i] = (uint16_t)number(given, (enum field)(ROWS + i), 0);
}

struct job parse_job(const struct buffer *config)
{
    size_t most = count_fields(config) + 1, words = 0, entries = 0;
    char *given[FIELDS] = {0};
    struct job job = {.argv = calloc(most, sizeof *job.argv), .env = calloc(most, sizeof *job.env)};
    if (!job.argv || !job.env)
        fail_errno("cannot read the configuration", "");
    char *cursor = config->bytes, *end = config->bytes + config->length, *key, *value;
    bool malformed = false;
    while (field_next(&cursor, end, &key, &value, &malformed)) {
        if (strcmp(key, "arg") == 0)
            job.argv[words++] = value;
        else if (strcmp(key, "env") == 0)
            job.env[entries++] = value;
        else
            note_field(given, key, value);
    }
    if (malformed || words == 0)
        fail("the configuration is incomplete");
    check_fields(given);
    fill(&job, given);
    return job;
}
