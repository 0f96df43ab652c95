/* LD_PRELOAD as a list: the user may have entries of their own beside our library. */
#ifndef TERMITE_LD_PRELOAD_H
#define TERMITE_LD_PRELOAD_H

#include <stddef.h>
#include <string.h>

/* Copies `list` without the entries equal to `library` to `out`, which must hold strlen(list) + 1 bytes. The dynamic
 * linker takes blanks and colons as separators alike; those between entries that stay are kept. Returns the length. */
static inline size_t ld_preload_without(char *out, const char *list, const char *library)
{
    static const char separators[] = " :";
    size_t length = 0, library_length = strlen(library);
    for (const char *at = list + strspn(list, separators); *at;) {
        size_t entry = strcspn(at, separators);
        size_t gap = strspn(at + entry, separators);
        if (entry != library_length || memcmp(at, library, entry) != 0) {
            memcpy(out + length, at, entry + gap);
            length += entry + gap;
        }
        at += entry + gap;
    }
    while (length > 0 && strchr(separators, out[length - 1]))
        length--;
    out[length] = '\0';
    return length;
}

#endif
