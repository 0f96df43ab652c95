/* Describe the terminal of the launcher's output, and the size of its window. */
#include "../launcher.h"
#include "../../shared/fields.h"

#include <sys/ioctl.h>
#include <sys/sysmacros.h>

static int terminal = -1;      /* stdout or stderr */
static struct winsize written; /* by write_window */

/* Return the number of the terminal that a descriptor is open on, or 0 if that is unknown. The
 * number of /dev/tty is that of the terminal behind it. */
static unsigned number_of(int fd)
{
    unsigned number = 0;
    return ioctl(fd, TIOCGDEV, &number) == 0 ? number : 0;
}

bool is_one_terminal(int one, int other)
{
    unsigned number = number_of(one);
    return number != 0 && number == number_of(other);
}

void note_terminal(int fd)
{
    terminal = fd;
}

bool has_terminal(void)
{
    return terminal >= 0;
}

/* Write a number and a colon to `at`. Return the end. snprintf is not safe in a signal handler. */
static char *write_number(char *at, unsigned number)
{
    char digits[8];
    size_t count = 0;
    do
        digits[count++] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    while (count > 0)
        *at++ = digits[--count];
    *at++ = ':';
    return at;
}

size_t write_window(char text[WINDOW_BYTES])
{
    (void)ioctl(terminal, TIOCGWINSZ, &written);
    char *at = write_number(text, written.ws_row);
    at = write_number(at, written.ws_col);
    at = write_number(at, written.ws_xpixel);
    at = write_number(at, written.ws_ypixel);
    at[-1] = '\0';
    return (size_t)(at - text);
}

bool is_window_new(void)
{
    struct winsize size;
    return ioctl(terminal, TIOCGWINSZ, &size) == 0 && memcmp(&size, &written, sizeof size) != 0;
}

void terminal_describe(struct buffer *invoke)
{
    char text[WINDOW_BYTES];
    if (!has_terminal())
        return;
    (void)write_window(text);
    field_add(invoke, "window", text);
}
