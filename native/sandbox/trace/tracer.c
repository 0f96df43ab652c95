/* Trace a job: two threads of its pid 1, started while the sandbox waits.
 *
 * The forker has the job's filter, which holds for one thread. It forks the command, so that the
 * command's processes have the filter, and pid 1 itself does not. A filter costs more than
 * a hundred microseconds to install, and this way no job waits for it.
 *
 * The listener answers the calls. It is a thread, so the job cannot kill it, and its death is that
 * of the job. A call goes on as if it had not been stopped: the kernel reads its arguments again.
 * Nothing that a job does here can therefore gain it anything; it can only falsify its own trace.
 *
 * A signal that arrives before the listener has received a call ends the call with EINTR, which a
 * program does not expect of open(2). The calls of a listener have consecutive numbers. The forker
 * makes the first and the last one, so that each lost one is counted. Such a job must run again. */
#include "../sandbox.h"
#include "path_calls.h"

#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { LISTENER_STACK_BYTES = 256 * 1024, FORKER_STACK_BYTES = 8 * 1024 * 1024 /* execvp(3) puts an argv there */ };
enum { ROOM_BYTES = 1024 /* the kernel writes as many bytes as its own structure has */ };

static struct {
    bool is_on;
    const struct ids *own;
    void (*end_job)(int signal);
    int listener;
    pid_t forker_tid;
    pthread_t forker_thread, listener_thread;
    sem_t is_installed, has_request, is_forked;
    void (*child)(const void *argument); /* NULL: the forker ends */
    const void *argument;
    pid_t child_pid;
    int failure; /* of the forker: a number of errno */
    _Atomic bool is_ending;
    uint64_t first, last, received; /* numbers of calls, and their count */
} tracer;

/* Wait for a semaphore. */
static void await(sem_t *semaphore)
{
    while (sem_wait(semaphore) != 0)
        ;
}

/* Make a traced call that does nothing. */
static void mark(void)
{
    (void)syscall(SYS_chdir, NULL);
}

/* Be the forker. */
static void *run_forker(void *nothing)
{
    tracer.forker_tid = (pid_t)syscall(SYS_gettid);
    tracer.listener = install_trace_filter();
    tracer.failure = errno;
    sem_post(&tracer.is_installed);
    if (tracer.listener < 0)
        return nothing;
    mark();
    for (;;) {
        await(&tracer.has_request);
        if (!tracer.child)
            break;
        tracer.child_pid = fork();
        tracer.failure = errno;
        if (tracer.child_pid == 0)
            tracer.child(tracer.argument);
        sem_post(&tracer.is_forked);
    }
    mark();
    return nothing;
}

/* Answer one call that waits. */
static void answer_call(const struct seccomp_notif *call)
{
    note_call((pid_t)call->pid, &call->data);
    if (is_watched_now(&call->data)) {
        answer_watched_call(tracer.listener, call, tracer.own, tracer.end_job);
        return;
    }
    struct seccomp_notif_resp response = {.id = call->id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
    (void)ioctl(tracer.listener, SECCOMP_IOCTL_NOTIF_SEND, &response); /* it fails if the caller was killed */
}

/* Be the listener, until the forker makes its last call. */
static void *run_listener(void *nothing)
{
    static union {
        struct seccomp_notif call;
        char room[ROOM_BYTES];
    } received;
    for (;;) {
        memset(&received, 0, sizeof received);
        if (ioctl(tracer.listener, SECCOMP_IOCTL_NOTIF_RECV, &received) != 0) {
            if (errno == EINTR || errno == ENOENT) /* ENOENT: a signal has taken the call away meanwhile */
                continue;
            _exit(EXIT_FAILED); /* all calls of the job would wait for ever */
        }
        if (!tracer.received++)
            tracer.first = received.call.id;
        tracer.last = received.call.id;
        bool is_last = tracer.is_ending && (pid_t)received.call.pid == tracer.forker_tid;
        answer_call(&received.call);
        if (is_last)
            return nothing;
    }
}

/* Start a thread. Return false, with errno, if that fails. */
static bool start_thread(pthread_t *thread, size_t stack_bytes, void *(*run)(void *))
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, stack_bytes);
    errno = pthread_create(thread, &attributes, run, NULL);
    pthread_attr_destroy(&attributes);
    return errno == 0;
}

/* Start both threads. No signal is for them. Return NULL, or a text of what failed, with errno. */
static const char *start_threads(const struct ids *own, void (*end_job)(int signal))
{
    sigset_t all, before;
    sigfillset(&all);
    tracer.own = own;
    tracer.end_job = end_job;
    sem_init(&tracer.is_installed, 0, 0);
    sem_init(&tracer.has_request, 0, 0);
    sem_init(&tracer.is_forked, 0, 0);
    sigprocmask(SIG_BLOCK, &all, &before);
    bool is_forking = start_thread(&tracer.forker_thread, FORKER_STACK_BYTES, run_forker);
    if (is_forking)
        await(&tracer.is_installed);
    tracer.is_on = is_forking && tracer.listener >= 0;
    if (is_forking)
        errno = tracer.failure;
    const char *failure = tracer.is_on ? NULL : "cannot install the filter of a traced job";
    if (tracer.is_on && !start_thread(&tracer.listener_thread, LISTENER_STACK_BYTES, run_listener))
        failure = "cannot start a thread";
    int reason = errno;
    sigprocmask(SIG_SETMASK, &before, NULL);
    errno = reason;
    return failure;
}

void start_tracer(const struct ids *own, void (*end_job)(int signal))
{
    const char *failure = start_threads(own, end_job);
    if (failure)
        fail_errno(failure, "");
}

pid_t fork_command(void (*child)(const void *argument), const void *argument)
{
    if (!tracer.is_on) {
        pid_t pid = fork();
        if (pid == 0)
            child(argument);
        return pid;
    }
    tracer.child = child;
    tracer.argument = argument;
    sem_post(&tracer.has_request);
    await(&tracer.is_forked);
    errno = tracer.failure;
    return tracer.child_pid;
}

/* End both threads. All of the job is dead. Return the number of lost calls. */
static uint64_t end_threads(void)
{
    tracer.is_ending = true;
    tracer.child = NULL;
    sem_post(&tracer.has_request);
    pthread_join(tracer.listener_thread, NULL);
    pthread_join(tracer.forker_thread, NULL);
    tracer.is_on = false;
    return tracer.last - tracer.first + 1 - tracer.received;
}

void end_tracer(int file, struct buffer *said)
{
    if (!tracer.is_on)
        return;
    uint64_t lost = end_threads();
    if (!write_paths(file))
        note_gap(GAP_PATHS);
    field_add_number(said, "calls", (long long)(tracer.received - 2));
    if (lost)
        field_add_number(said, "lost", (long long)lost);
    if (noted_gaps())
        field_add_number(said, "gaps", (long long)noted_gaps());
}

/* -- the trial ----------------------------------------------------------------------------------------------------- */

/* Be a traced command. */
static void use_a_path(const void *nothing)
{
    (void)nothing;
    _exit(access("/", F_OK) == 0 ? 0 : EXIT_FAILED);
}

/* Trace a command. Return 0, or what is missing: a number of errno, or EIO if nothing was noted. */
static int try_here(void)
{
    int status = 0;
    if (unshare(CLONE_NEWUSER) != 0) /* in it this process may read what its children do, as pid 1 of a job may */
        (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (start_threads(NULL, NULL) != NULL)
        return errno;
    pid_t child = fork_command(use_a_path, NULL);
    if (child < 0 || waitpid(child, &status, 0) != child)
        return errno;
    (void)end_threads();
    bool is_whole = status == 0 && noted_gaps() == 0 && tracer.received > 2;
    return is_whole ? 0 : EIO;
}

const char *try_tracing(void)
{
    int status;
    const char *failure = make_trace_filter(false, NULL);
    if (failure)
        return failure;
    pid_t child = fork();
    if (child == 0)
        _exit(try_here());
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status))
        return "a trial has failed";
    switch (WEXITSTATUS(status)) {
    case 0:
        return NULL;
    case EINVAL:
        return "the kernel is older than Linux 5.19";
    case EBUSY:
        return "this machine's own listener for system calls is in the way (seccomp)";
    case EIO:
        return "the memory of a job cannot be read (kernel.yama.ptrace_scope is 3)";
    default:
        return "the kernel or a container forbids listeners for system calls (seccomp)";
    }
}

int print_tracing(void)
{
    const char *failure = try_tracing();
    if (!failure)
        return 0;
    dprintf(STDERR_FILENO, "termite-sandbox: %s\n", failure);
    return EXIT_FAILED;
}
