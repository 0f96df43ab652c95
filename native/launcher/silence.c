/* Notice that the master does not answer, and say so.
 *
 * A long job is silent too. Therefore the launcher asks a silent master whether it lives (frame
 * `A`), and the master's event loop answers. Short jobs end before the launcher would ask. */
#include "launcher.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

/* A test compiles the launcher with a shorter time. */
#ifndef SILENCE_TICK_MS
#define SILENCE_TICK_MS 10000
#endif

enum { ASK_AT = 2, SAY_AT = 3 }; /* ticks without a byte of the master */

static int connection = -1;
static const char *command_name;
static int ticks;

void listen_for_silence(int master, const struct command *command)
{
    const struct timeval tick = {.tv_sec = SILENCE_TICK_MS / 1000, .tv_usec = SILENCE_TICK_MS % 1000 * 1000};
    connection = master;
    command_name = command->argv[0];
    setsockopt(master, SOL_SOCKET, SO_RCVTIMEO, &tick, sizeof tick);
    setsockopt(master, SOL_SOCKET, SO_SNDTIMEO, &tick, sizeof tick);
}

int silence_tick_ms(void)
{
    return SILENCE_TICK_MS;
}

/* Return the letter of the state of a process, as proc(5) lists them, or '?'. */
static char state_of(pid_t pid)
{
    char path[32], text[512];
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return '?';
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    text[length > 0 ? length : 0] = '\0';
    const char *behind_name = strrchr(text, ')');
    return behind_name && behind_name[1] == ' ' && behind_name[2] ? behind_name[2] : '?';
}

static const char *words_for(char state)
{
    return state == 'T' || state == 't' ? ", which is stopped" : state == 'D' ? ", which waits for a disk" : "";
}

/* Print that the master does not answer, and what the user can do. */
static void say_silent(void)
{
    struct ucred peer = {.pid = 0};
    socklen_t size = sizeof peer;
    getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size);
    char who[64] = "", resumes[64] = "", ends[64] = "";
    if (peer.pid > 0) { /* it is visible in this pid namespace */
        char state = state_of(peer.pid);
        snprintf(who, sizeof who, " (process %ld%s)", (long)peer.pid, words_for(state));
        if (state == 'T')
            snprintf(resumes, sizeof resumes, "kill -CONT %ld resumes it, ", (long)peer.pid);
        snprintf(ends, sizeof ends, "kill -9 %ld ends the wait, ", (long)peer.pid);
    }
    dprintf(STDERR_FILENO, "termite: the master%s has not answered for %d s; %s%sTERMITE=off builds without it: %s\n",
            who, SAY_AT * SILENCE_TICK_MS / 1000, resumes, ends, command_name);
}

void note_silence(bool may_ask)
{
    ticks++;
    if (ticks == ASK_AT && may_ask)
        (void)!send(connection, "\0\0\0\0A", 5, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (ticks == SAY_AT)
        say_silent();
}

void note_answer(void)
{
    if (ticks >= SAY_AT)
        dprintf(STDERR_FILENO, "termite: the master answers again: %s\n", command_name);
    ticks = 0;
}
