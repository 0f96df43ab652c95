/* Make system calls by each entry of an x86-64 kernel, and print how they end.
 *
 * The program is static, so it runs on any root.
 *
 *   denied_calls call ENTRY:NUMBER[:ARGUMENT]...   print "ok" or the error's number for each
 *   denied_calls no-filters PROGRAM [ARGUMENT...]  run PROGRAM as if the kernel had no filters
 *   denied_calls skip                              trace a child, skip a call, print the result
 *
 * ENTRY is x86_64, i386 or x32. ARGUMENT is a number, or "@" for the address of zeroed memory, or
 * "@A,B,C" for the address of three words of 32 bits with these values. */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ARGUMENTS = 5, X32_BIT = 0x40000000 };

/* Below 4 GiB, so that an i386 call can point there. */
static uint32_t *low_memory(void)
{
    void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (memory == MAP_FAILED)
        abort();
    return memory;
}

static long call_i386(long number, const long *a)
{
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(a[0]), "c"(a[1]), "d"(a[2]), "S"(a[3]), "D"(a[4])
                     : "r8", "r9", "r10", "r11", "memory");
    return (int)result;
}

static long call_x86_64(long number, const long *a)
{
    long result = syscall(number, a[0], a[1], a[2], a[3], a[4]);
    return result < 0 ? -errno : result;
}

static long parse_argument(char *text)
{
    if (*text != '@')
        return strtol(text, NULL, 0);
    uint32_t *words = low_memory();
    size_t count = 0;
    for (char *save, *word = strtok_r(text + 1, ",", &save); word; word = strtok_r(NULL, ",", &save))
        words[count++] = (uint32_t)strtol(word, NULL, 0);
    return (long)words;
}

static void make_call(char *text)
{
    char *save, *entry = strtok_r(text, ":", &save);
    long number = strtol(strtok_r(NULL, ":", &save), NULL, 0), arguments[ARGUMENTS] = {0};
    for (size_t i = 0; i < ARGUMENTS; i++) {
        char *argument = strtok_r(NULL, ":", &save);
        if (argument)
            arguments[i] = parse_argument(argument);
    }
    long result;
    if (strcmp(entry, "i386") == 0)
        result = call_i386(number, arguments);
    else
        result = call_x86_64(strcmp(entry, "x32") == 0 ? number | X32_BIT : number, arguments);
    if (result < 0)
        printf("%ld\n", -result);
    else
        puts("ok");
}

static int without_filters(char **program)
{
    struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {.len = sizeof steps / sizeof *steps, .filter = steps};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
        return 1;
    execvp(program[0], program);
    return 1;
}

/* Skip a call as proot and fakeroot-ng do: the tracer sets the number to -1, and the result. */
static int skip(void)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        _exit(syscall(SYS_getppid) == 77 ? 0 : 1);
    }
    waitpid(child, &status, 0);
    ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESYSGOOD);
    for (;;) {
        struct user_regs_struct registers;
        if (ptrace(PTRACE_SYSCALL, child, 0, 0) != 0 || waitpid(child, &status, 0) != child || !WIFSTOPPED(status))
            break;
        if (WSTOPSIG(status) != (SIGTRAP | 0x80) || ptrace(PTRACE_GETREGS, child, 0, &registers) != 0 ||
            registers.orig_rax != SYS_getppid)
            continue;
        registers.orig_rax = (unsigned long long)-1;
        registers.rax = 77;
        ptrace(PTRACE_SETREGS, child, 0, &registers);
    }
    puts(WIFEXITED(status) && WEXITSTATUS(status) == 0 ? "skipped" : "not skipped");
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "no-filters") == 0)
        return without_filters(argv + 2);
    if (argc == 2 && strcmp(argv[1], "skip") == 0)
        return skip();
    if (argc < 2 || strcmp(argv[1], "call") != 0)
        return 2;
    for (int i = 2; i < argc; i++)
        make_call(argv[i]);
    return 0;
}
