/* Give the launcher any frames of a master (native/launcher/conversation.c) and of termite-redo.
 *
 * The first byte of the input says what the launcher's stdin is, whether the output can be written,
 * and how the frames come: as raw bytes, or as payloads whose headers this target adds. The second
 * one says how many bytes come at once, and in which turns stdin is ready. */
#include "../process.h"
#include "../../../native/launcher/conversation.c"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

enum { STDIN_KINDS = 4, BROKEN_OUTPUT = 4, PACKED = 8, IN_A_PLAN = 16, PLAN_FAILS = 32 };
enum { MASTER = 900, INPUT_BYTES = 64 * 1024, TURNS = 4096 };
enum { RAN_HERE = 1000, BY_SIGNAL = 2000 };
static const char input_text[600] = "what the build tool's standard input has";

static char stream[INPUT_BYTES]; /* what the master sends */
static size_t stream_length, stream_at, piece;
static unsigned turns, coins;
static uint8_t flags;
static int cancel;
static struct shown written[2];

/* -- the files of the launcher that are not linked ------------------------------------------------------------------ */

void cancel_on_signals(int master)
{
}

void stop_cancelling(void)
{
}

void cancel_job(int signal)
{
    cancel = signal;
}

int cancelled_by(void)
{
    return cancel;
}

_Noreturn void end_by_signal(int signal)
{
    expect(signal > 0 && signal <= SIGRTMAX, "a signal that exists");
    end_run(BY_SIGNAL);
}

/* Check an answer of the launcher. */
bool send_undisturbed(int master, const void *bytes, size_t length)
{
    const char *frame = bytes;
    expect(master == MASTER && length >= HEADER_BYTES, "an answer is a frame to the master");
    expect(read_u32(frame) == length - HEADER_BYTES && length <= HEADER_BYTES + STDIN_BYTES, "its length is right");
    expect(memchr("SPF", frame[4], 3) != NULL, "it is an answer");
    return flags & BROKEN_OUTPUT ? ++turns % 2 : true;
}

void listen_for_silence(int master, const struct command *command)
{
}

int silence_tick_ms(void)
{
    return 0;
}

void note_silence(bool may_ask)
{
}

void note_answer(void)
{
}

void check_may_run_here(const struct command *command, const char *reason, const char *detail)
{
}

const char *failure_text(int failure)
{
    return strerror(failure);
}

/* Check that a command which the master has not ordered to run here finds its whole stdin. */
static void check_stdin(void)
{
    int left = 0;
    unsigned kind = flags % STDIN_KINDS;
    if (kind == 1 || kind == 2)
        expect(ioctl(STDIN_FILENO, FIONREAD, &left) == 0 && left == sizeof input_text, "a stream is whole");
    if (kind == 0)
        expect(lseek(STDIN_FILENO, 0, SEEK_CUR) == 0, "a file is read from where it was");
}

_Noreturn void run_command(const struct command *command, const struct local_run *run, const struct shown shown[2])
{
    size_t length = 0;
    if (!run->set)
        check_stdin();
    for (char **entry = run->set; entry && *entry; entry++) {
        expect(strchr(*entry, '=') != NULL, "a variable has a value");
        length += strlen(*entry);
    }
    expect(length <= BUFFER_BYTES, "variables come out of one frame");
    end_run(RAN_HERE);
}

/* Give what is left of the input as the fields of termite-redo. */
enum redo_answer ask_plan(char *fields, size_t size, size_t *length)
{
    *length = 0;
    if (flags & PLAN_FAILS)
        return REDO_FAILED;
    if (!(flags & IN_A_PLAN))
        return REDO_ABSENT;
    *length = stream_length < size ? stream_length : size;
    memcpy(fields, stream, *length);
    return REDO_ENDED;
}

/* -- the wrapped calls --------------------------------------------------------------------------------------------- */

ssize_t __real_read(int fd, void *bytes, size_t length);
ssize_t __wrap_read(int fd, void *bytes, size_t length);
ssize_t __real_write(int fd, const void *bytes, size_t length);
ssize_t __wrap_write(int fd, const void *bytes, size_t length);
int __real_poll(struct pollfd *fds, nfds_t count, int timeout);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout);
int __wrap_shutdown(int fd, int how);

/* Return whether a coin shows heads; the input is the only chance. */
static bool toss(void)
{
    coins = coins * 1103515245u + 12345u;
    return coins >> 16 & 1;
}

ssize_t __wrap_read(int fd, void *bytes, size_t length)
{
    if (!is_running() || fd != MASTER)
        return __real_read(fd, bytes, length);
    size_t count = stream_length - stream_at;
    count = count < length ? count : length;
    count = count < piece ? count : piece;
    memcpy(bytes, stream + stream_at, count);
    stream_at += count;
    return (ssize_t)count;
}

ssize_t __wrap_write(int fd, const void *bytes, size_t length)
{
    if (!is_running() || (fd != STDOUT_FILENO && fd != STDERR_FILENO))
        return __real_write(fd, bytes, length);
    if (flags & BROKEN_OUTPUT && toss()) {
        errno = EPIPE;
        return -1;
    }
    shown_add(&written[fd - 1], bytes, length);
    return (ssize_t)length;
}

/* Let the master be ready, or stdin if the coin says so and it is. */
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout)
{
    if (!is_running() || count == 1)
        return __real_poll(fds, count, timeout);
    if (count == 0)
        return 0;
    fds[0].revents = fds[1].revents = 0;
    if (fds[1].fd >= 0 && ++turns < TURNS && toss())
        __real_poll(&fds[1], 1, 0);
    if (!fds[1].revents)
        fds[0].revents = POLLIN;
    return 1;
}

int __wrap_shutdown(int fd, int how)
{
    expect(fd == MASTER, "only the connection to the master is shut down");
    return 0;
}

/* -- the input ----------------------------------------------------------------------------------------------------- */

/* Put the frames into `stream`, with headers if they have none: a frame ends at an empty line. */
static void take_input(const uint8_t *input, size_t size)
{
    struct buffer made = {0};
    for (const uint8_t *at = input, *end = input + size; at < end && flags & PACKED;) {
        const uint8_t *stop = memmem(at, (size_t)(end - at), "\n\n", 2);
        size_t length = (size_t)((stop ? stop : end) - at);
        size_t payload = length > 0 ? length - 1 : 0;
        char header[HEADER_BYTES] = {(char)payload, (char)(payload >> 8), (char)(payload >> 16), 0, (char)*at};
        buffer_add(&made, header, sizeof header);
        buffer_add(&made, at + 1, payload);
        at += length + 2;
    }
    if (!(flags & PACKED))
        buffer_add(&made, input, size);
    stream_length = made.length < sizeof stream ? made.length : sizeof stream;
    if (stream_length > 0)
        memcpy(stream, made.bytes, stream_length);
    free(made.bytes);
}

/* Make fd 0 a file, a pipe, a socket, or /dev/null, with some bytes to read. */
static void make_stdin(void)
{
    int ends[2] = {-1, -1};
    switch (flags % STDIN_KINDS) {
    case 0:
        ends[0] = ends[1] = memfd_create("stdin", MFD_CLOEXEC);
        break;
    case 1:
        expect(pipe2(ends, O_CLOEXEC) == 0, "a pipe");
        break;
    case 2:
        expect(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0, "a socket");
        break;
    default:
        ends[0] = ends[1] = open("/dev/null", O_RDWR | O_CLOEXEC);
    }
    expect(write_whole(ends[1], input_text, sizeof input_text), "stdin has bytes");
    expect(dup2(ends[0], STDIN_FILENO) == 0, "a descriptor");
    (void)lseek(STDIN_FILENO, 0, SEEK_SET);
    close(ends[0]);
    if (ends[1] != ends[0])
        close(ends[1]);
}

/* -- one conversation ---------------------------------------------------------------------------------------------- */

static void converse(void *talk)
{
    for (;;)
        take_frame(talk);
}

/* Let the launcher hear the stream in pieces of `bytes`. Return how it ended. */
static int hear(size_t bytes, unsigned chance)
{
    static char *words[] = {"cc", NULL};
    static const struct command command = {.how = "direct", .tool = "", .exe = "cc", .argv = words};
    struct conversation *talk = calloc(1, sizeof *talk);
    expect(talk != NULL, "memory");
    talk->master = MASTER;
    talk->command = &command;
    piece = bytes;
    coins = chance;
    stream_at = turns = 0;
    cancel = 0;
    memset(written, 0, sizeof written);
    make_stdin();
    int code = run_to_end(converse, talk);
    expect(code != RETURNED, "a conversation ends the launcher");
    expect(talk->start <= talk->end && talk->end <= BUFFER_BYTES, "the unread part lies in the buffer");
    expect(code == RAN_HERE || code == BY_SIGNAL || (code >= 0 && code <= 255), "an exit code that exists");
    free(talk);
    return code;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    if (size < 2)
        return 0;
    flags = input[0];
    take_input(input + 2, size - 2);
    int code = hear((size_t)input[1] + 1, input[1]);
    struct shown before[2] = {written[0], written[1]};
    int again = hear(INPUT_BYTES, input[1]);
    if (flags & BROKEN_OUTPUT || memmem(stream, stream_length, "R", 1))
        return 0; /* the turns may differ */
    expect(code == again, "the launcher ends alike, however the bytes are cut");
    for (int i = 0; i < 2; i++)
        expect(before[i].length == written[i].length && before[i].hash == written[i].hash, "the output is alike too");
    return 0;
}
