/* Build and parse fields, which are key=value with a NUL byte after each, and read and write them
 * whole.
 *
 * A buffer that could not grow stays `failed` and ignores all further additions, so that only the
 * function that sends it has to check. docs/develop/protocol.md lists the users of fields. */
#ifndef TERMITE_FIELDS_H
#define TERMITE_FIELDS_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct buffer {
    char *bytes;
    size_t length, capacity;
    bool failed;
};

/* Return room for `more` bytes at the end of the buffer, or NULL if there is no memory. */
static inline char *buffer_reserve(struct buffer *buffer, size_t more)
{
    if (buffer->failed)
        return NULL;
    if (!buffer->bytes || buffer->capacity - buffer->length < more) { /* NULL must not be an empty buffer's end */
        size_t capacity = buffer->capacity * 2 + more + 4096;
        char *bytes = realloc(buffer->bytes, capacity);
        if (!bytes) {
            buffer->failed = true;
            return NULL;
        }
        buffer->bytes = bytes;
        buffer->capacity = capacity;
    }
    return buffer->bytes + buffer->length;
}

/* Append bytes. */
static inline void buffer_add(struct buffer *buffer, const void *bytes, size_t length)
{
    char *end = buffer_reserve(buffer, length);
    if (!end)
        return;
    memcpy(end, bytes, length);
    buffer->length += length;
}

/* Append the field `key`=`value`. */
static inline void field_add(struct buffer *buffer, const char *key, const char *value)
{
    buffer_add(buffer, key, strlen(key));
    buffer_add(buffer, "=", 1);
    buffer_add(buffer, value, strlen(value) + 1);
}

/* Append the field `key`=`number`, in decimal digits. */
static inline void field_add_number(struct buffer *buffer, const char *key, long long number)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", number);
    field_add(buffer, key, text);
}

/* Take the next field at *cursor, in place. Return false at the end, and set *malformed too if the
 * bytes there are no field. */
static inline bool field_next(char **cursor, char *end, char **key, char **value, bool *malformed)
{
    if (*cursor == end)
        return false;
    size_t left = (size_t)(end - *cursor);
    char *stop = memchr(*cursor, '\0', left);
    char *equals = memchr(*cursor, '=', stop ? (size_t)(stop - *cursor) : left);
    if (!stop || !equals) {
        *malformed = true;
        return false;
    }
    *equals = '\0';
    *key = *cursor;
    *value = equals + 1;
    *cursor = stop + 1;
    return true;
}

/* Parse a value that is a whole number in digits of `base`, without a sign. Return false if it is
 * none, or more than `most`. */
static inline bool parse_number(const char *value, int base, unsigned long long most, unsigned long long *number)
{
    char *stop;
    errno = 0;
    *number = strtoull(value, &stop, base);
    return !errno && !*stop && *value >= '0' && *value <= '9' && *number <= most;
}

/* Write all bytes. Return false, with errno, if that fails. */
static inline bool write_whole(int fd, const void *bytes, size_t length)
{
    const char *at = bytes;
    while (length > 0) {
        ssize_t n = write(fd, at, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        at += n;
        length -= (size_t)n;
    }
    return true;
}

/* Read everything up to the end of the file. Return false, with errno, if that fails. */
static inline bool read_whole(int fd, struct buffer *buffer)
{
    for (;;) {
        char *end = buffer_reserve(buffer, 65536);
        if (!end) {
            errno = ENOMEM;
            return false;
        }
        ssize_t n = read(fd, end, 65536);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n == 0;
        buffer->length += (size_t)n;
    }
}

#endif
