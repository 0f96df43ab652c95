/* Fork the sandboxes of a mirror, before they are needed (`serve`). The mirror does not do so
 * itself, because it is a large process.
 *
 * A sandbox waits for its job as pid 1 of its own namespaces, at a socket of its own. The mirror
 * gets the other end and a pidfd. This process never waits for a job: the kernel reaps those that
 * end.
 *
 * Nobody else can answer the watched calls of these jobs. If a listener closes, the kernel ends
 * such a call with ENOSYS, and the job would take that for its own error. Therefore each pid 1
 * holds the listener as well, so that a call waits when this process has gone. The kernel then
 * kills each pid 1, and the mirror gives the jobs back. */
#include "sandbox.h"

#include <errno.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { REQUEST_BYTES = 64 };
enum { PROBE = 1 /* asks for nothing: the mirror sees in the socket's queue whether it is read */ };

/* Send the fields and two descriptors; `fds` is NULL if there are none. Return false if that
 * fails. */
static bool announce(int socket, const struct buffer *said, const int *fds)
{
    struct iovec text = {.iov_base = said->bytes, .iov_len = said->length};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(2 * sizeof(int))];
    } room = {0};
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1};
    if (fds) {
        message.msg_control = room.bytes;
        message.msg_controllen = sizeof room.bytes;
        room.header = (struct cmsghdr){
            .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(2 * sizeof(int))};
        memcpy(CMSG_DATA(&room.header), fds, 2 * sizeof(int));
    }
    ssize_t sent;
    do
        sent = sendmsg(socket, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent >= 0;
}

/* Send the field error=, from `what` and the text of errno. Return false if that fails. */
static bool announce_failure(int socket, const char *what)
{
    char text[256];
    struct buffer said = {0};
    snprintf(text, sizeof text, "%s: %s", what, strerror(errno));
    field_add(&said, "error", text);
    bool announced = !said.failed && announce(socket, &said, NULL);
    free(said.bytes);
    return announced;
}

/* All that the sandboxes of this process share. make_scope has returned `scope`. `is_apart`: each
 * sandbox gets a network namespace of its own. The next announcement says if calls are not
 * denied or not watched. `self` is a pidfd of this process if there is a listener. */
struct making {
    int socket, scope, self;
    bool is_apart;
    struct denial denial;
    const struct sandbox_options *options;
};

/* Have the kernel kill this sandbox when `serve` ends, whose pidfd is `self`. */
static void end_with_serve(int self)
{
    struct pollfd end = {.fd = self, .events = POLLIN};
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0)
        fail_errno("cannot end with the process that watches the calls of jobs", "");
    if (poll(&end, 1, 0) != 0) /* it ended before */
        _exit(EXIT_FAILED);
    close(self);
}

/* Make one sandbox and announce it. Return false if the mirror does not listen any more. */
static bool make_sandbox(const struct making *making)
{
    int socket = making->socket, ends[2], pidfd = -1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
        return announce_failure(socket, "cannot make a socket");
    struct clone_args args = {.flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_PIDFD |
                                       (making->is_apart ? CLONE_NEWNET : 0),
                              .pidfd = (uintptr_t)&pidfd,
                              .exit_signal = SIGCHLD};
    long pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0) {
        close(socket);
        close(ends[0]);
        report_fd = ends[1];
        if (making->denial.listener >= 0)
            end_with_serve(making->self);
        if (making->is_apart)
            start_loopback();
        if (making->scope >= 0)
            enter_scope(making->scope);
        be_init(ends[1], making->options->trace, making->options->own);
    }
    close(ends[1]); /* before the announcement, so that only the sandbox holds this end, and its death closes it */
    bool listened;
    if (pid < 0) {
        listened = announce_failure(socket, "cannot make namespaces");
    } else {
        struct buffer said = {0};
        field_add_number(&said, "pid", pid);
        if (*making->denial.unfiltered)
            field_add(&said, "unfiltered", making->denial.unfiltered);
        if (*making->denial.unwatched)
            field_add(&said, "unwatched", making->denial.unwatched);
        listened = !said.failed && announce(socket, &said, (int[]){ends[0], pidfd});
        free(said.bytes);
        close(pidfd);
    }
    close(ends[0]);
    return listened;
}

/* Return how many sandboxes a message of `length` bytes asks for. */
static ssize_t count_wanted(const char *wanted, ssize_t length)
{
    ssize_t count = 0;
    for (ssize_t i = 0; i < length; i++)
        count += wanted[i] != PROBE;
    return count;
}

/* Wait until the mirror asks for sandboxes, and answer the watched calls of jobs meanwhile. Return
 * the number of sandboxes, or 0 if the mirror has closed the socket. */
static ssize_t wait_for_request(int socket, int listener, const struct ids *own)
{
    char wanted[REQUEST_BYTES]; /* each byte asks for one sandbox, or is PROBE */
    for (;;) {
        struct pollfd ready[] = {{.fd = socket, .events = POLLIN}, {.fd = listener, .events = POLLIN}};
        if (listener >= 0 && poll(ready, 2, -1) < 0)
            continue;
        if (listener >= 0 && ready[1].revents & POLLIN)
            take_watched_call(listener, own);
        if (listener >= 0 && !ready[0].revents)
            continue;
        ssize_t length = read(socket, wanted, sizeof wanted);
        if (length == 0 || (length < 0 && errno != EINTR))
            return 0;
        ssize_t count = count_wanted(wanted, length);
        if (count > 0)
            return count;
    }
}

/* Install the filter of the sandboxes, with a listener for their watched calls. If they are traced,
 * they watch these calls themselves; end this process if that is not possible. */
static void filter_calls(struct making *making)
{
    const struct sandbox_options *options = making->options;
    bool is_traced = options->trace != UNTRACED;
    const char *untraceable = is_traced ? make_trace_filter(options->trace == FOR_COMPILERS, options->own) : NULL;
    struct denial *denial = &making->denial;
    *denial = deny_calls(is_traced ? NULL : options->own);
    if (denial->is_too_long)
        fail("the filter of system calls is too long");
    if (is_traced && (*denial->unfiltered || untraceable))
        end_with("untraceable", untraceable ? untraceable : denial->unfiltered);
}

/* Enter the network namespace of the jobs. */
static void enter_network(struct making *making)
{
    const struct sandbox_options *options = making->options;
    making->is_apart = making->scope < 0 && !options->network && !options->pasta;
    if (options->network || options->pasta || making->is_apart)
        return; /* that of pasta needs the parts */
    if (options->network_fd < 0)
        make_network();
    else if (setns(options->network_fd, CLONE_NEWNET) != 0 || close(options->network_fd) != 0)
        fail_errno("cannot enter a network namespace", "");
}

int serve(int socket, const char *scratch, const struct sandbox_options *options)
{
    struct making making = {.socket = socket, .options = options};
    const char *untraceable = options->trace == UNTRACED ? NULL : try_tracing();
    report_fd = socket;
    if (untraceable)
        end_with("untraceable", untraceable);
    signal(SIGCHLD, SIG_IGN);
    look_at_core_pattern();
    making.scope = make_scope();
    enter_network(&making);
    if (unshare(CLONE_NEWNS) != 0)
        fail_errno("cannot make a mount namespace", "");
    make_parts(scratch);
    if (options->pasta)
        make_private_network(options->pasta, scratch);
    filter_calls(&making);
    if (making.denial.listener >= 0 && (making.self = (int)syscall(SYS_pidfd_open, getpid(), 0)) < 0)
        fail_errno("cannot open a pidfd", "");
    for (;;) {
        ssize_t count = wait_for_request(socket, making.denial.listener, options->own);
        if (count == 0)
            return 0;
        for (; count > 0; count--) {
            if (!is_network_alive())
                fail("pasta(1), which gives the jobs a network, has ended");
            refuse_new_addresses();
            if (!make_sandbox(&making))
                return 0;
            *making.denial.unfiltered = *making.denial.unwatched = '\0'; /* only the first announcement has them */
        }
    }
}
