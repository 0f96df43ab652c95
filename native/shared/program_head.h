/* Judge by the first bytes of a file whether the kernel can start it. See elf(5) and execve(2). */
#ifndef TERMITE_PROGRAM_HEAD_H
#define TERMITE_PROGRAM_HEAD_H

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { PROGRAM_HEAD_BYTES = 256 /* BINPRM_BUF_SIZE: the kernel reads no more */ };

/* Return whether the kernel of this machine starts programs of an architecture, a number of
 * elf(5). */
static inline bool is_own_architecture(unsigned machine)
{
#if defined(__x86_64__)
    return machine == EM_X86_64 || machine == EM_386;
#elif defined(__aarch64__)
    return machine == EM_AARCH64 || machine == EM_ARM;
#else
    return true;
#endif
}

/* Return whether a table of `count` entries lies in a file of `size` bytes. */
static inline bool has_program_table(uint64_t offset, uint64_t count, uint64_t size)
{
    return count > 0 && offset <= size && count <= size - offset;
}

/* Return whether `head`, the first `n` bytes of a file of `size` bytes, is that of an ELF program
 * for this machine. The kernel calls other ones ENOEXEC. */
static inline bool is_elf_head(const char *head, size_t n, uint64_t size)
{
    Elf64_Ehdr wide;
    Elf32_Ehdr narrow;
    if (n < sizeof wide || memcmp(head, ELFMAG, SELFMAG) != 0)
        return false;
    memcpy(&wide, head, sizeof wide); /* type and architecture have one place in both */
    memcpy(&narrow, head, sizeof narrow);
    if ((wide.e_type != ET_EXEC && wide.e_type != ET_DYN) || !is_own_architecture(wide.e_machine))
        return false;
    if (head[EI_CLASS] == ELFCLASS32)
        return narrow.e_phentsize == sizeof(Elf32_Phdr) &&
               has_program_table(narrow.e_phoff, (uint64_t)narrow.e_phnum * sizeof(Elf32_Phdr), size);
    return wide.e_phentsize == sizeof(Elf64_Phdr) &&
           has_program_table(wide.e_phoff, (uint64_t)wide.e_phnum * sizeof(Elf64_Phdr), size);
}

/* Return the interpreter that a script's first line names, or NULL if `head` is of no script. Its
 * length comes in `length`. The kernel rejects a first line "#!" alone, and a name that goes on
 * behind the head. */
static inline const char *script_interpreter(const char *head, size_t n, size_t *length)
{
    size_t at = 2;
    if (n < at || memcmp(head, "#!", at) != 0)
        return NULL;
    while (at < n && (head[at] == ' ' || head[at] == '\t'))
        at++;
    *length = 0;
    while (at + *length < n && !memchr(" \t\n", head[at + *length], 4))
        ++*length;
    return *length > 0 && at + *length < PROGRAM_HEAD_BYTES ? head + at : NULL;
}
#endif
