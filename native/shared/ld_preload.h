/* Take our library out of LD_PRELOAD, which may have entries of the user's own. */
#ifndef TERMITE_LD_PRELOAD_H
#define TERMITE_LD_PRELOAD_H

#include <stddef.h>
#include <string.h>

/* Copy `list` to `out` without the entries equal to `library`, and return the length. `out` must
 * have room for strlen(list) + 1 bytes. The dynamic linker takes blanks and colons alike as
 * separators; those between the remaining entries stay. */
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
