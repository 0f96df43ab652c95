/* Hold the conversation with the master, from the sent invocation to the end of this process.
 *
 * Frames are taken out of one buffer. Output is passed on as it arrives, without waiting for the
 * end of its frame. The command can still be run on this machine as long as `is_spent` is false,
 * and if the master is lost, `is_once`. Output that was shown is compared with what it writes. */
#include "launcher.h"
#include "../shared/fields.h"

#include <endian.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <sys/socket.h>

enum { BUFFER_BYTES = 64 * 1024, HEADER_BYTES = 5, STDIN_BYTES = 256 * 1024 };
enum { READ_ATTEMPTS = 5, READ_PAUSE_MS = 20 };

struct conversation {
    int master;
    const struct command *command;
    bool is_spent;          /* the command must not run again: bytes of stdin are gone, or its results are written */
    bool is_asked;          /* the plan was read, and says nothing more */
    bool is_once;           /* the command may have used the network, and runs here only if the master says so */
    struct shown shown[2];  /* the command's output on stdout and on stderr; a worker merges them if they are one */
    struct stdin_wish wish; /* the job's unanswered request to read stdin */
    bool muted;             /* the output can no longer be written, and is dropped */
    bool broken;            /* because of a write error, which was printed */
    size_t start, end;      /* the unread part of the buffer */
    char buffer[BUFFER_BYTES];
    char fields[BUFFER_BYTES + 1];
};

/* Return the little-endian number in four bytes. */
static uint32_t read_u32(const char *bytes)
{
    uint32_t number;
    memcpy(&number, bytes, sizeof number);
    return le32toh(number);
}

/* -- the ends of a conversation ------------------------------------------------------------------------------------ */

/* End this process if the job was cancelled, as the command would have ended. */
static void end_if_cancelled(const struct conversation *talk)
{
    if (talk->broken)
        _exit(1); /* like nearly every command that cannot write */
    if (cancelled_by())
        end_by_signal(cancelled_by());
}

/* Run the command on this machine if it was not `heard`; otherwise end this process with `code`. */
static _Noreturn void give_up(struct conversation *talk, const char *reason, int code)
{
    end_if_cancelled(talk);
    if (!talk->is_spent && !talk->is_once) {
        check_may_run_here(talk->command, reason,
                           code == EXIT_LOST ? " (termite-ctl start starts one)" : " (termite-ctl shutdown ends it)");
        dprintf(STDERR_FILENO, "termite: 1 command runs on this machine: %s: %s\n", reason,
                talk->command->argv[0]);
        stop_cancelling();
        run_command(talk->command, &(struct local_run){.recurse = false}, talk->shown);
    }
    dprintf(STDERR_FILENO, "termite: %s while the command was running: %s\n", reason, talk->command->argv[0]);
    _exit(code);
}

static _Noreturn void end_as(struct conversation *talk, char *cursor, size_t length);

/* End as the plan of the job says. Return if there is none: the job has not happened. `reason` says
 * what became of the master. */
static void end_as_planned(struct conversation *talk, const char *reason)
{
    size_t length = 0;
    end_if_cancelled(talk);
    if (talk->is_asked)
        return;
    talk->is_asked = true;
    switch (ask_plan(talk->fields, BUFFER_BYTES, &length)) {
    case REDO_ENDED:
        talk->is_spent = true;
        end_as(talk, talk->fields, length);
    case REDO_FAILED:
        end_if_cancelled(talk);
        dprintf(STDERR_FILENO, "termite: %s while it wrote the results of: %s\n", reason, talk->command->argv[0]);
        _exit(EXIT_LOST);
    case REDO_ABSENT:
        break;
    }
}

static _Noreturn void lose_master(struct conversation *talk)
{
    end_as_planned(talk, "the master went away");
    give_up(talk, "the master went away", EXIT_LOST);
}

static _Noreturn void reject_master(struct conversation *talk)
{
    close(talk->master); /* else its results could overwrite those of the local run */
    end_as_planned(talk, "the master spoke another protocol");
    give_up(talk, "the master speaks another protocol", EXIT_PROTOCOL);
}

/* -- stdin --------------------------------------------------------------------------------------------------------- */

/* Send an answer of `length` bytes, which stand in `frame` behind room for the header. */
static void send_answer(struct conversation *talk, char kind, char *frame, size_t length)
{
    for (int i = 0; i < 4; i++)
        frame[i] = (char)(length >> (8 * i));
    frame[4] = kind;
    talk->wish.size = 0;
    /* The job cannot go on without the answer, so the master must notice that there is none. The
     * kernel may only have had no memory for it. The master may have sent the end of the job before
     * it closed: that is read next. */
    if (!send_undisturbed(talk->master, frame, HEADER_BYTES + length))
        shutdown(talk->master, SHUT_WR);
}

/* Answer a request with an error. A request that the master has withdrawn gets ECANCELED, so that
 * the master knows that no more of our stdin is taken. */
static void answer_error(struct conversation *talk, int error)
{
    char frame[HEADER_BYTES + 32];
    int length = snprintf(frame + HEADER_BYTES, 32, "errno=%d", error);
    send_answer(talk, 'F', frame, (size_t)length + 1);
}

/* Read what the job has asked for, and send it. */
static void answer_stdin(struct conversation *talk)
{
    static char frame[HEADER_BYTES + STDIN_BYTES];
    char *payload = frame + HEADER_BYTES;
    bool is_taken;
    ssize_t n = stdin_read(&talk->wish, payload, &is_taken);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return; /* another process has read it first: wait again */
    talk->is_spent = talk->is_spent || is_taken;
    if (n < 0)
        answer_error(talk, errno);
    else
        send_answer(talk, is_taken || talk->wish.offset >= 0 ? 'S' : 'P', frame, (size_t)n);
}

/* Wait until the master has sent something. Meanwhile answer the job's request as soon as stdin can
 * be read. */
static void wait_for_master(struct conversation *talk)
{
    for (;;) {
        struct pollfd fds[2] = {{.fd = talk->master, .events = POLLIN},
                                {.fd = talk->wish.size > 0 ? STDIN_FILENO : -1, .events = POLLIN}};
        int ready = poll(fds, 2, silence_tick_ms());
        if (ready == 0)
            note_silence(true);
        if (ready <= 0)
            continue;
        if (fds[0].revents)
            return;
        if (fds[1].revents)
            answer_stdin(talk);
    }
}

/* -- taking bytes -------------------------------------------------------------------------------------------------- */

/* Read what the master has sent, as read(2) does. An error does not mean that nothing is there: the
 * end of the job may wait in the socket, and the command must not run again then. A connection that
 * is really lost reports its end at the next attempt. */
static ssize_t read_master(struct conversation *talk)
{
    ssize_t n;
    int left = READ_ATTEMPTS;
    while ((n = read(talk->master, talk->buffer, BUFFER_BYTES)) < 0) {
        if (errno == EAGAIN)
            note_silence(true);
        else if (errno != EINTR && --left == 0)
            break;
        else if (errno != EINTR)
            (void)poll(NULL, 0, READ_PAUSE_MS);
    }
    return n;
}

/* Make at least one byte of the conversation available. */
static void fill(struct conversation *talk)
{
    if (talk->start < talk->end)
        return;
    if (talk->wish.size > 0)
        wait_for_master(talk);
    ssize_t n = read_master(talk);
    if (n <= 0)
        lose_master(talk);
    note_answer();
    talk->start = 0;
    talk->end = (size_t)n;
}

/* Take up to `most` bytes of those that are available. Return their number, which is at least one;
 * they stay in the buffer until the next call. */
static size_t take(struct conversation *talk, char **bytes, size_t most)
{
    fill(talk);
    size_t length = talk->end - talk->start < most ? talk->end - talk->start : most;
    *bytes = talk->buffer + talk->start;
    talk->start += length;
    return length;
}

/* Take exactly `length` bytes. */
static void take_whole(struct conversation *talk, char *out, size_t length)
{
    while (length > 0) {
        char *bytes;
        size_t n = take(talk, &bytes, length);
        memcpy(out, bytes, n);
        out += n;
        length -= n;
    }
}

/* -- output -------------------------------------------------------------------------------------------------------- */

/* Drop all further output and cancel the job, because output cannot be written: nobody reads it, or
 * the disk is full. The command itself would have ended by that. */
static void mute(struct conversation *talk, int failure)
{
    talk->muted = true;
    if (cancelled_by()) /* the handler of SIGPIPE has done it */
        return;
    talk->broken = true;
    dprintf(STDERR_FILENO, "termite: cannot write the output of %s: %s\n", talk->command->argv[0],
            failure_text(failure));
    cancel_job(SIGPIPE);
}

/* Write all bytes, even if the descriptor is non-blocking. */
static void write_output(struct conversation *talk, int fd, const char *bytes, size_t length)
{
    if (!talk->muted && !output_write(fd, bytes, length))
        mute(talk, errno);
}

/* Copy a frame of `length` bytes to `fd`. */
static void pass_on(struct conversation *talk, int fd, size_t length, bool is_the_commands)
{
    while (length > 0) {
        char *bytes;
        size_t n = take(talk, &bytes, length);
        if (is_the_commands)
            shown_add(&talk->shown[fd - 1], bytes, n);
        write_output(talk, fd, bytes, n);
        length -= n;
    }
}

/* -- verdicts and exits -------------------------------------------------------------------------------------------- */

/* Take the fields of a frame, with a NUL behind them. They are valid until the next call. */
static char *take_fields(struct conversation *talk, size_t length)
{
    if (length > BUFFER_BYTES)
        reject_master(talk);
    take_whole(talk, talk->fields, length);
    talk->fields[length] = '\0';
    return talk->fields;
}

/* Take the fields of a frame `X`. `run` points into them. */
static void take_local_run(struct conversation *talk, size_t length, struct local_run *run)
{
    static char *set[BUFFER_BYTES / 4 + 1];
    char *cursor = take_fields(talk, length), *end = cursor + length, *key, *value;
    size_t count = 0;
    bool malformed = false;
    *run = (struct local_run){.set = set};
    while (field_next(&cursor, end, &key, &value, &malformed)) {
        if (strcmp(key, "recurse") == 0)
            run->recurse = strcmp(value, "1") == 0;
        else if (strcmp(key, "env") == 0 && strchr(value, '=') && count < sizeof set / sizeof *set - 1)
            set[count++] = value;
    }
    set[count] = NULL;
    if (malformed)
        reject_master(talk);
}

/* Become the command, as the master has ordered. */
static _Noreturn void execute_here(struct conversation *talk, size_t length)
{
    struct local_run run;
    take_local_run(talk, length, &run);
    stop_cancelling();
    run_command(talk->command, &run, talk->shown);
}

/* Return the number of a field. Set *malformed if it is no number, or more than `most`. */
static unsigned long long take_number(const char *value, unsigned long long most, bool *malformed)
{
    unsigned long long number = 0;
    if (!parse_number(value, 10, most, &number))
        *malformed = true;
    return number;
}

/* End as the command did, which the fields of an exit at `cursor` say. */
static _Noreturn void end_as(struct conversation *talk, char *cursor, size_t length)
{
    struct job_exit exit;
    bool is_known = parse_exit(cursor, length, &exit);
    end_if_cancelled(talk);
    if (!is_known)
        reject_master(talk);
    end_like_job(&exit);
}

/* Take a frame `E`. The job has happened when all of it is here, even if the fields are wrong. If
 * the master dies before that, the plan tells what the job has changed. */
static _Noreturn void take_exit(struct conversation *talk, size_t length)
{
    talk->is_spent = talk->is_spent || length > BUFFER_BYTES;
    char *fields = take_fields(talk, length);
    talk->is_spent = true;
    end_as(talk, fields, length);
}

/* Take the fields of a frame `R`: a new request to read stdin, one that is withdrawn, or bytes to
 * drop. */
static void take_read(struct conversation *talk, size_t length)
{
    char *cursor = take_fields(talk, length), *end = cursor + length, *key, *value;
    bool malformed = false, asks = false;
    struct stdin_wish wish = {.offset = -1};
    unsigned long long taken = 0;
    while (field_next(&cursor, end, &key, &value, &malformed)) {
        if (strcmp(key, "taken") == 0)
            taken = take_number(value, ULLONG_MAX, &malformed);
        else if (strcmp(key, "offset") == 0)
            wish.offset = (off_t)take_number(value, LLONG_MAX, &malformed);
        else if (strcmp(key, "peek") == 0)
            wish.peek = take_number(value, 1, &malformed) != 0;
        else if (strcmp(key, "size") == 0) {
            unsigned long long size = take_number(value, ULLONG_MAX, &malformed);
            wish.size = size < STDIN_BYTES ? (size_t)size : STDIN_BYTES;
            asks = true;
        }
    }
    if (malformed)
        reject_master(talk);
    if (stdin_drop(taken))
        talk->is_spent = true;
    if (asks && wish.size == 0 && talk->wish.size > 0)
        answer_error(talk, ECANCELED);
    if (asks)
        talk->wish = wish;
}

/* Take one frame and obey it. */
static void take_frame(struct conversation *talk)
{
    char header[HEADER_BYTES];
    take_whole(talk, header, sizeof header);
    size_t length = read_u32(header);
    switch (header[4]) {
    case '1':
    case '2':
        pass_on(talk, header[4] - '0', length, true);
        break;
    case 'N':
        pass_on(talk, STDERR_FILENO, length, false);
        break;
    case 'R':
        take_read(talk, length);
        break;
    case 'O': /* the command gets the network */
    case 'A': /* the master lives, which every byte of it tells */
        take_fields(talk, length);
        talk->is_once = talk->is_once || header[4] == 'O';
        break;
    case 'X':
        execute_here(talk, length);
    case 'E':
        take_exit(talk, length);
    default:
        reject_master(talk);
    }
}

_Noreturn void relay(int master, const struct command *command)
{
    static struct conversation talk;
    talk.master = master;
    talk.command = command;
    listen_for_silence(master, command);
    cancel_on_signals(master);
    for (;;)
        take_frame(&talk);
}
