/* Tell the user which variables of termite are wrong, and what to write instead.
 *
 * termite/engine/decide/logic/switches.py and termite/engine/nearest_name.py have the same table
 * and the same rules for the programs in Python, which refuse a wrong variable. The launcher goes
 * on, because it must not make a build fail. A test compares the tables. */
#include "../launcher.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

enum { LONGEST_NAME = 64, MOST_VALUES = 3, SHORTEST_BEGINNING = 2 };

/* A variable, and the values that it may have; without any, it may have all. */
struct setting {
    const char *name; /* without the prefix, but for TERMITE itself */
    const char *values[MOST_VALUES];
    const char *number; /* the words for the number that it may be, too; NULL: it may be none */
};

static const char PREFIX[] = "TERMITE_";
enum { PREFIX_LENGTH = sizeof PREFIX - 1 };

static const struct setting SETTINGS[] = {
    {"BUILD", {NULL}, NULL},
    {"BUILD_SOCKET", {NULL}, NULL},
    {"CACHE", {"on", "read", "off"}, NULL},
    {"ENV_EXCLUDE", {NULL}, NULL},
    {"JOB_OUTPUT", {"kept", "dropped"}, NULL},
    {"LAUNCHER", {NULL}, NULL},
    {"LOCAL", {"never"}, NULL},
    {"LOG_FORMAT", {"text", "json"}, NULL},
    {"NATIVE", {NULL}, NULL},
    {"PRELOAD", {NULL}, NULL},
    {"PRELOAD_TOOLS", {NULL}, NULL},
    {"ROOT", {NULL}, NULL},
    {"SHARED_CACHE", {NULL}, NULL},
    {"SHARED_CACHE_MODE", {"read", "write"}, NULL},
    {"SHARED_CACHE_SETTINGS", {NULL}, NULL},
    {"SHELL", {NULL}, NULL},
    {"SHORT", {"auto"}, "a number of milliseconds"},
    {"SOCKET", {NULL}, NULL},
    {"SUMMARY", {NULL}, NULL},
    {"TMP", {"shared", "private"}, NULL},
    {"TRACE", {"off", "exact"}, NULL},
    {"VERBOSE", {NULL}, NULL},
};
enum { SETTINGS_COUNT = sizeof SETTINGS / sizeof *SETTINGS };

static const struct setting SWITCH = {"TERMITE", {"off"}, NULL};

static int least(int one, int other)
{
    return one < other ? one : other;
}

static char plain(char letter)
{
    return (char)(letter == '_' ? '-' : tolower((unsigned char)letter));
}

/* Return how many letters must be added, removed, replaced, or swapped with their neighbour. Both
 * words have at most LONGEST_NAME letters. */
static int distance(const char *one, const char *other)
{
    int rows[3][LONGEST_NAME + 1];
    int width = (int)strlen(other), height = (int)strlen(one);
    for (int to = 0; to <= width; to++)
        rows[0][to] = to;
    for (int at = 1; at <= height; at++) {
        int *row = rows[at % 3], *above = rows[(at + 2) % 3], *before = rows[(at + 1) % 3];
        row[0] = at;
        for (int to = 1; to <= width; to++) {
            char letter = plain(one[at - 1]), wanted = plain(other[to - 1]);
            row[to] = least(least(above[to], row[to - 1]) + 1, above[to - 1] + (letter != wanted));
            if (at > 1 && to > 1 && letter == plain(other[to - 2]) && plain(one[at - 2]) == wanted)
                row[to] = least(row[to], before[to - 2] + 1);
        }
    }
    return rows[height % 3][width];
}

static bool begins_with(const char *name, const char *word)
{
    while (*word && plain(*name) == plain(*word))
        name++, word++;
    return !*word;
}

/* Return how far `word` is from `name` if it is near enough for a misspelling, else a very large
 * number. The beginning of a name is nearer than any other word, and of several names that begin
 * so the shortest is the nearest. */
static int nearness(const char *word, const char *name)
{
    if (strnlen(word, LONGEST_NAME + 1) > LONGEST_NAME)
        return INT_MAX;
    while (plain(*word) == '-')
        word++;
    int length = (int)strlen(word);
    if (length >= SHORTEST_BEGINNING && begins_with(name, word))
        return (int)strlen(name) - LONGEST_NAME;
    int limit = length < 6 ? 1 : length / 3;
    int away = distance(word, name);
    return away <= limit && away < length ? away : INT_MAX;
}

static bool is_number(const char *text)
{
    char *end;
    double number = strtod(text, &end);
    return end != text && !*end && number >= 0 && number < 1e300;
}

/* Check the value of `setting`, which the environment has as `entry`. Print a line if it has no
 * meaning. */
static void check_value(const struct setting *setting, const char *entry, const char *value)
{
    const char *near = NULL;
    int nearest = INT_MAX, name_length = (int)(value - entry);
    for (int at = 0; at < MOST_VALUES && setting->values[at]; at++) {
        int away = nearness(value, setting->values[at]);
        if (strcmp(value, setting->values[at]) == 0)
            return;
        if (away < nearest) {
            nearest = away;
            near = setting->values[at];
        }
    }
    if (!*value || !setting->values[0] || (setting->number && is_number(value)))
        return;
    const char *first = near ? near : setting->values[0];
    const char *second = near ? NULL : setting->values[1], *third = second ? setting->values[2] : NULL;
    dprintf(STDERR_FILENO, "termite: %s is ignored: write %s%s%.*s%s%s%.*s%s%s%.*s%s\n", entry,
            setting->number && !near ? setting->number : "", setting->number && !near ? " or " : "", name_length, entry,
            first, second ? " or " : "", second ? name_length : 0, entry, second ? second : "", third ? " or " : "",
            third ? name_length : 0, entry, third ? third : "");
}

/* Check a variable that begins with the prefix: its value if it is known, else its name. */
static void check_entry(const char *entry, const char *equals)
{
    char name[LONGEST_NAME + 1];
    size_t length = (size_t)(equals - entry) - PREFIX_LENGTH;
    if (length > LONGEST_NAME)
        return;
    memcpy(name, entry + PREFIX_LENGTH, length);
    name[length] = '\0';
    const char *near = NULL;
    int nearest = INT_MAX;
    for (int at = 0; at < SETTINGS_COUNT; at++) {
        if (strcmp(name, SETTINGS[at].name) == 0) {
            check_value(&SETTINGS[at], entry, equals + 1);
            return;
        }
        int away = nearness(name, SETTINGS[at].name);
        if (away < nearest) {
            nearest = away;
            near = SETTINGS[at].name;
        }
    }
    if (near)
        dprintf(STDERR_FILENO, "termite: %s%s is ignored: write %s%s\n", PREFIX, name, PREFIX, near);
}

void warn_of_settings(void)
{
    for (char **entry = environ; *entry; entry++) {
        const char *equals = strchr(*entry, '=');
        if (strncmp(*entry, "TERMITE=", 8) == 0)
            check_value(&SWITCH, *entry, *entry + 8);
        else if (equals && strncmp(*entry, PREFIX, PREFIX_LENGTH) == 0 && equals >= *entry + PREFIX_LENGTH)
            check_entry(*entry, equals);
    }
}
