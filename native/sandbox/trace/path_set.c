/* Keep the set of paths that a job has used, and how it used them. Only names are kept: no state of
 * a file, and no result of a call. */
#include "../sandbox.h"

#include <stdint.h>

enum { PATHS_MAX = 1 << 17, TEXT_MAX = 16 * 1024 * 1024, FIRST_PATHS = 512, FIRST_TEXT = 32 * 1024 };

/* The kinds of a path are written to the trace in this form. */
struct kinds {
    uint32_t first, all;
};

struct entry {
    uint32_t hash, offset, length; /* of the path in `texts`; each has a NUL behind it */
};

static struct {
    struct kinds *kinds;   /* in the order of first use */
    struct entry *entries; /* the same order */
    uint32_t count, room;
    uint32_t *slots; /* a hash table of indices + 1; as many as a power of two */
    uint32_t slot_count;
    char *texts;
    size_t text_length, text_room;
} set;

/* Make room for twice as many paths. Return false if there is no memory. */
static bool grow(void)
{
    uint32_t room = set.room ? 2 * set.room : FIRST_PATHS;
    struct kinds *kinds = realloc(set.kinds, room * sizeof *kinds);
    set.kinds = kinds ? kinds : set.kinds;
    struct entry *entries = realloc(set.entries, room * sizeof *entries);
    set.entries = entries ? entries : set.entries;
    uint32_t *slots = calloc(2 * (size_t)room, sizeof *slots);
    if (!kinds || !entries || !slots) {
        free(slots);
        return false;
    }
    for (uint32_t i = 0; i < set.count; i++) {
        uint32_t at = set.entries[i].hash & (2 * room - 1);
        while (slots[at])
            at = (at + 1) & (2 * room - 1);
        slots[at] = i + 1;
    }
    free(set.slots);
    set.slots = slots;
    set.slot_count = 2 * room;
    set.room = room;
    return true;
}

/* Return room for `length` bytes of text and a NUL, or NULL. */
static char *text_room(size_t length)
{
    while (set.text_room - set.text_length < length + 1) {
        size_t room = set.text_room ? 2 * set.text_room : FIRST_TEXT;
        char *texts = room > TEXT_MAX ? NULL : realloc(set.texts, room);
        if (!texts)
            return NULL;
        set.texts = texts;
        set.text_room = room;
    }
    return set.texts + set.text_length;
}

/* Return the hash of a path (FNV-1a). */
static uint32_t hash_of(const char *path, size_t length)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)path[i]) * 16777619u;
    return hash;
}

bool note_path(const char *path, size_t length, uint32_t kinds)
{
    if (set.count == set.room && (set.count == PATHS_MAX || !grow()))
        return false;
    uint32_t hash = hash_of(path, length), at = hash & (set.slot_count - 1);
    for (; set.slots[at]; at = (at + 1) & (set.slot_count - 1)) {
        const struct entry *known = &set.entries[set.slots[at] - 1];
        if (known->hash == hash && known->length == length && memcmp(set.texts + known->offset, path, length) == 0) {
            set.kinds[set.slots[at] - 1].all |= kinds;
            return true;
        }
    }
    char *text = text_room(length);
    if (!text)
        return false;
    memcpy(text, path, length);
    text[length] = '\0';
    set.kinds[set.count] = (struct kinds){kinds, kinds};
    set.entries[set.count] = (struct entry){hash, (uint32_t)set.text_length, (uint32_t)length};
    set.text_length += length + 1;
    set.slots[at] = ++set.count;
    return true;
}

bool write_paths(int fd)
{
    return write_whole(fd, &set.count, sizeof set.count) &&
           write_whole(fd, set.kinds, set.count * sizeof *set.kinds) && write_whole(fd, set.texts, set.text_length);
}
