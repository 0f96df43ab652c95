/* Change the mask of signals, and end this process by one.
 *
 * The launcher may be linked with musl, whose sigprocmask does not touch the three signals that
 * musl uses itself. The mask is inherited by the command, so it must be exact. */
#include "launcher.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

int change_mask(int how, const sigset_t *set, sigset_t *before)
{
    return (int)syscall(SYS_rt_sigprocmask, how, set, before, (size_t)_NSIG / 8);
}

_Noreturn void end_by_signal(int signal)
{
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); /* the command dumps its own core if it should */
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigaction(signal, &action, NULL);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    change_mask(SIG_UNBLOCK, &set, NULL);
    kill(getpid(), signal);
    _exit(128 + signal); /* reached if the signal does not kill */
}
