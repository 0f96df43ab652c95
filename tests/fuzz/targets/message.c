/* Receive any message as an order (native/sandbox/order.c): its size, its descriptors, and the
 * file with its fields.
 *
 * The first byte of the input says how many descriptors come along, whether the fields are in a
 * file, and whether the message is longer than a sandbox takes. */
#include "../process.h"
#include "../../../native/sandbox/sandbox.h"

#include <sys/mman.h>
#include <sys/socket.h>

enum { MOST_FDS = 7, IN_A_FILE = 0x80, TOO_LONG = 0x40, LONG_BYTES = 66 * 1024, FOREIGN = 64 };

ssize_t __real_write(int fd, const void *bytes, size_t length);
ssize_t __wrap_write(int fd, const void *bytes, size_t length);
int close_range(unsigned first, unsigned last, int flags);

static struct order order;
static size_t fds_sent;

ssize_t __wrap_write(int fd, const void *bytes, size_t length)
{
    return is_running() ? (ssize_t)length : __real_write(fd, bytes, length);
}

static void send_message(int socket, const void *bytes, size_t size, const int *fds, size_t count)
{
    struct iovec text = {.iov_base = (void *)bytes, .iov_len = size};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(MOST_FDS * sizeof(int))];
    } room = {0};
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1};
    if (count > 0) {
        message.msg_control = room.bytes;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        room.header.cmsg_level = SOL_SOCKET;
        room.header.cmsg_type = SCM_RIGHTS;
        room.header.cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(&room.header), fds, count * sizeof(int));
    }
    expect(sendmsg(socket, &message, MSG_NOSIGNAL) >= 0, "the message is sent");
}

static void receive(void *channel)
{
    receive_order(*(int *)channel, &order);
    expect(order.fd_count >= 2 && order.fd_count <= ORDER_FDS && order.fd_count <= fds_sent, "two to five descriptors");
    parse_job(&order.config);
}

/* Return a file with `bytes`, at its start. */
static int make_file(const uint8_t *bytes, size_t size)
{
    int fd = memfd_create("order", MFD_CLOEXEC);
    expect(fd >= 0 && write_whole(fd, bytes, size) && lseek(fd, 0, SEEK_SET) == 0, "a file in memory");
    return fd;
}

/* Return the bytes in front of others, LONG_BYTES in all. */
static const char *lengthened(const uint8_t *bytes, size_t size)
{
    static char text[LONG_BYTES];
    memset(text, 'x', sizeof text);
    memcpy(text, bytes, size < sizeof text ? size : sizeof text);
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    static const char follows[] = "large=1";
    int ends[2], fds[MOST_FDS], first;
    if (size < 1)
        return 0;
    expect(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0, "a socket");
    first = ends[0];
    bool in_a_file = input[0] & IN_A_FILE;
    int file = make_file(input + 1, in_a_file ? size - 1 : 0);
    fds_sent = input[0] & MOST_FDS;
    for (size_t i = 0; i < MOST_FDS; i++)
        fds[i] = file;
    if (in_a_file)
        send_message(ends[1], follows, sizeof follows, fds, fds_sent);
    else if (input[0] & TOO_LONG)
        send_message(ends[1], lengthened(input + 1, size - 1), LONG_BYTES, fds, fds_sent);
    else
        send_message(ends[1], input + 1, size - 1, fds, fds_sent);
    int code = run_to_end(receive, &ends[0]);
    expect(code == EXIT_FAILED || in_a_file || !(input[0] & TOO_LONG), "a message that is too long is refused");
    expect(code == RETURNED || code == EXIT_FAILED || (code == 0 && size == 1), "an order is taken or refused");
    close_range((unsigned)first, (unsigned)first + FOREIGN, 0); /* including those that were received */
    return 0;
}
