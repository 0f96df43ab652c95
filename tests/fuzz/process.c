#include "process.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BLOCKS = 4096 };

static jmp_buf start;
static bool runs;
static int end_code;
static void *blocks[MOST_BLOCKS]; /* allocated by the running code */
static size_t block_count;

_Noreturn void __real__exit(int code);
_Noreturn void __real_exit(int code);
_Noreturn void __wrap__exit(int code);
_Noreturn void __wrap_exit(int code);
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void __real_free(void *block);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *block, size_t size);
void __wrap_free(void *block);
int __wrap_dprintf(int fd, const char *format, ...) __attribute__((format(printf, 2, 3)));

bool is_running(void)
{
    return runs;
}

_Noreturn void end_run(int code)
{
    end_code = code;
    longjmp(start, 1);
}

int run_to_end(void (*code)(void *), void *context)
{
    end_code = RETURNED;
    if (setjmp(start) == 0) {
        runs = true;
        code(context);
    }
    runs = false;
    while (block_count > 0)
        free(blocks[--block_count]);
    return end_code;
}

void expect(bool holds, const char *what)
{
    if (holds)
        return;
    runs = false;
    fprintf(stderr, "expected: %s\n", what);
    abort();
}

char *guarded_copy(const void *bytes, size_t size)
{
    char *copy = malloc(size);
    expect(copy != NULL, "memory");
    if (size > 0)
        memcpy(copy, bytes, size);
    return copy;
}

/* -- the wrapped calls --------------------------------------------------------------------------------------------- */

_Noreturn void __wrap__exit(int code)
{
    if (runs)
        end_run(code);
    __real__exit(code);
}

_Noreturn void __wrap_exit(int code)
{
    if (runs)
        end_run(code);
    __real_exit(code);
}

static void note_block(void *block)
{
    if (!runs || !block)
        return;
    expect(block_count < MOST_BLOCKS, "few blocks of memory for one input");
    blocks[block_count++] = block;
}

static void forget_block(const void *block)
{
    for (size_t i = block_count; i > 0; i--)
        if (blocks[i - 1] == block) {
            blocks[i - 1] = blocks[--block_count];
            return;
        }
}

void *__wrap_malloc(size_t size)
{
    void *block = __real_malloc(size);
    note_block(block);
    return block;
}

void *__wrap_calloc(size_t count, size_t size)
{
    void *block = __real_calloc(count, size);
    note_block(block);
    return block;
}

void *__wrap_realloc(void *block, size_t size)
{
    void *larger = __real_realloc(block, size);
    if (larger) {
        forget_block(block);
        note_block(larger);
    }
    return larger;
}

void __wrap_free(void *block)
{
    forget_block(block);
    __real_free(block);
}

/* Format the message, so that its arguments are read, and drop it. */
int __wrap_dprintf(int fd, const char *format, ...)
{
    static char dropped[64 * 1024];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(dropped, sizeof dropped, format, arguments);
    va_end(arguments);
    return length;
}
