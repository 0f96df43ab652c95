/* Give the job the terminals that the submitter's streams have on the master's machine.
 *
 * The terminals are pairs of the job's own devpts, which nobody else sees. The mirror gets the
 * leading ends: it reads the output, and sets the size of the window. Nobody can type into the
 * terminal of an ordinary job, and what the job pushes back (TIOCSTI) goes to its own input.
 *
 * The output of an ordinary job is left as it is (no OPOST), because the submitter's terminal
 * changes it, as it changes the output of local commands. Pid 1 is the leader of the session, so
 * the end of the command hangs nothing up. A terminal to type at is complete, and its command leads
 * the session. In such a session nobody could resume a command that stops itself, and the kernel
 * lets it go on. */
#include "../sandbox.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>

enum { MOST_TERMINALS = 2 };

/* Open a new terminal of the job's devpts. Return its leading end, and set *follower to the
 * other. */
static int open_terminal(const struct job *job, int *follower)
{
    const int unlocked = 0;
    const struct winsize window = {job->window[0], job->window[1], job->window[2], job->window[3]};
    struct termios settings;
    int leader = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (leader < 0 || ioctl(leader, TIOCSPTLCK, &unlocked) != 0 ||
        (*follower = ioctl(leader, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0 ||
        tcgetattr(*follower, &settings) != 0)
        fail_errno("cannot open", "a terminal");
    if (job->terminals & IS_TYPED_AT)
        settings.c_iflag |= IUTF8;
    else
        settings.c_oflag &= ~(tcflag_t)OPOST;
    if (tcsetattr(*follower, TCSANOW, &settings) != 0 || ioctl(*follower, TIOCSWINSZ, &window) != 0)
        fail_errno("cannot set up", "a terminal");
    return leader;
}

/* Send the leading ends to the mirror. */
static void send_leaders(int channel, const int *leaders, size_t count)
{
    static char field[] = "terminals=1";
    struct iovec text = {.iov_base = field, .iov_len = sizeof field};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(MOST_TERMINALS * sizeof(int))];
    } room = {0};
    struct msghdr message = {.msg_iov = &text,
                             .msg_iovlen = 1,
                             .msg_control = room.bytes,
                             .msg_controllen = CMSG_SPACE(count * sizeof(int))};
    room.header = (struct cmsghdr){
        .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(count * sizeof(int))};
    memcpy(CMSG_DATA(&room.header), leaders, count * sizeof(int));
    ssize_t sent;
    do
        sent = sendmsg(channel, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0)
        fail_errno("cannot send", "a terminal");
}

/* Let the descriptor `number` be the terminal. */
static void put(int terminal, int number)
{
    if (dup2(terminal, number) < 0)
        fail_errno("cannot give the job", "its terminal");
}

void take_terminal(const struct job *job, int terminal)
{
    if (job->terminals & IS_TYPED_AT && setsid() < 0)
        fail_errno("cannot begin a session for", "a terminal");
    if (ioctl(terminal, TIOCSCTTY, 0) != 0)
        fail_errno("cannot take", "a terminal");
}

void give_terminals(const struct job *job, int channel)
{
    int leaders[MOST_TERMINALS], followers[MOST_TERMINALS];
    const size_t count = job->terminals & STDERR_APART ? 2 : 1;
    for (size_t i = 0; i < count; i++)
        leaders[i] = open_terminal(job, &followers[i]);
    send_leaders(channel, leaders, count);
    if (!(job->terminals & IS_TYPED_AT))
        take_terminal(job, followers[0]);
    if (job->terminals & ON_STDIN)
        put(followers[0], STDIN_FILENO);
    if (job->terminals & ON_STDOUT)
        put(followers[0], STDOUT_FILENO);
    if (job->terminals & ON_STDERR)
        put(followers[count - 1], STDERR_FILENO);
    for (size_t i = 0; i < count; i++) {
        close(leaders[i]);
        close(followers[i]);
    }
}
