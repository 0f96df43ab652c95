/* Give the preload library (native/preload/preload.c) any LD_PRELOAD, PATH, program name, and head
 * of a program, which decides whether the file is an ELF program or a script.
 *
 * The input has these texts in that order, with a NUL between them. */
#include "../process.h"
#include "../../../native/preload/preload.c"

#include <sys/mman.h>

enum { TEXTS = 3 };

int __wrap_setenv(const char *name, const char *value, int overwrite);
int __wrap_unsetenv(const char *name);

static const char *texts[TEXTS]; /* LD_PRELOAD, PATH, the name of the program */
static const uint8_t *head;
static size_t head_length;
static int program = -1;

/* Keep the environment as it is: glibc never frees a value of setenv. */
int __wrap_setenv(const char *name, const char *value, int overwrite)
{
    expect(name && strlen(value) < INT_MAX, "a value ends");
    return 0;
}

int __wrap_unsetenv(const char *name)
{
    return 0;
}

/* Return the variable `name`, for the caller to free. */
static char *make_variable(const char *name, const char *value)
{
    char *variable = malloc(strlen(name) + strlen(value) + 2);
    expect(variable != NULL, "memory");
    sprintf(variable, "%s=%s", name, value);
    return variable;
}

/* Return whether the kernel would run the file, by its first bytes. */
static bool is_known_to_the_kernel(void)
{
    if (is_elf_head((const char *)head, head_length, head_length))
        return true;
    return head_length >= 2 && memcmp(head, "#!", 2) == 0;
}

static void check_head(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", program);
    bool taken = is_executable(path);
    expect(!taken || is_known_to_the_kernel(), "only a program or a script goes to the launcher");
    expect(taken || !is_elf_head((const char *)head, head_length, head_length), "each ELF program goes to the launcher");
}

/* Check that the list has no entry of our library any more, and no other bytes than before. */
static void check_list(const char *list, const char *library)
{
    char *rest = malloc(strlen(list) + 1);
    size_t length = ld_preload_without(rest, list, library);
    expect(rest && length == strlen(rest) && length <= strlen(list), "the list becomes no longer");
    expect(length == 0 || strstr(list, rest) || strstr(list, library), "other entries stay as they are");
    for (const char *at = rest; *at;) {
        size_t entry = strcspn(at, " :");
        expect(entry != strlen(library) || memcmp(at, library, entry) != 0, "our library is out of the list");
        at += entry + (at[entry] != '\0');
    }
    free(rest);
}

/* Stand in for the real calls: check the words, and fail. */
static int refuse_to_execute(const char *file, char *const argv[], char *const envp[])
{
    expect(file && argv[0], "a command has a program and words");
    size_t length = strlen(file);
    for (char *const *word = argv; *word; word++)
        length += strlen(*word);
    for (char *const *entry = envp; *entry; entry++)
        length += strlen(*entry);
    errno = length > 0 ? ENOENT : EINVAL;
    return -1;
}

static void call_library(void *nothing)
{
    static char library[] = "/lib/libtermite-exec.so";
    char found[PATH_MAX], *argv[] = {"cc", "-c", (char *)texts[2], NULL};
    check_head();
    check_list(texts[0], library);
    char *variables[] = {make_variable("LD_PRELOAD", texts[0]), make_variable("PATH", texts[1]), NULL};
    char **before = environ;
    environ = variables;
    (void)leave_environment(library);
    if (find_executable(texts[2], found))
        expect(is_executable(found), "a program that is found can be executed");
    (void)is_listed(texts[0], texts[2]);
    active = true;
    tool_pid = 0; /* like a forked child of the tool */
    (void)wrap_exec(real_execvpe, texts[2], argv, environ);
    tool_pid = getpid();
    (void)wrap_exec(real_execve, texts[2], argv, environ);
    active = false;
    environ = before;
    free(variables[0]);
    free(variables[1]);
}

/* Make `program` a file with these bytes that may be executed. */
static void make_program(void)
{
    if (program < 0)
        program = memfd_create("program", MFD_CLOEXEC);
    expect(program >= 0 && ftruncate(program, 0) == 0, "a file in memory");
    expect(pwrite(program, head, head_length, 0) == (ssize_t)head_length, "the file has the head");
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    real_execve = real_execvpe = refuse_to_execute;
    strcpy(launcher, "/bin/termite");
    char *text = guarded_copy(input, size), *at = text, *end = text + size;
    for (int i = 0; i < TEXTS; i++) {
        char *stop = at < end ? memchr(at, '\0', (size_t)(end - at)) : NULL;
        texts[i] = stop ? at : "";
        at = stop ? stop + 1 : at;
    }
    head = (const uint8_t *)at;
    head_length = (size_t)(end - at);
    make_program();
    int code = run_to_end(call_library, NULL);
    expect(code == RETURNED, "the library ends no process");
    active = false;
    free(text);
    return 0;
}
