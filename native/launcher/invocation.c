/* Make the invocation: the frame that tells the master which command to run, and in which
 * surroundings.
 *
 * The fields of the environment must stand behind all others, because the master splits the frame
 * at the first of them. */
#include "launcher.h"
#include "../shared/ld_preload.h"
#include "../shared/fields.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

/* Add the environment without the names that only this machine may see, and without our library. */
static void add_environment(struct buffer *invoke)
{
    const char *library = preload_library();
    for (char **entry = environ; *entry; entry++) {
        if (strncmp(*entry, "TERMITE_PRELOAD=", 16) == 0 || strncmp(*entry, "TERMITE_LAUNCHER=", 17) == 0)
            continue;
        if (!library || strncmp(*entry, "LD_PRELOAD=", 11) != 0) {
            field_add(invoke, "env", *entry);
            continue;
        }
        char users[strlen(*entry) + 1];
        memcpy(users, *entry, 11);
        if (ld_preload_without(users + 11, *entry + 11, library) > 0)
            field_add(invoke, "env", users);
    }
}

/* Add all fields of the frame, as docs/develop/protocol.md lists them. */
static void add_invocation(struct buffer *invoke, const struct command *command, const char *cwd,
                           const char *token)
{
    mode_t mask = umask(0);
    umask(mask);
    char octal[16];
    snprintf(octal, sizeof octal, "%03o", (unsigned)mask);

    field_add(invoke, "v", "6");
    field_add(invoke, "token", token);
    field_add(invoke, "how", command->how);
    field_add(invoke, "tool", command->tool);
    field_add(invoke, "exe", command->exe);
    field_add(invoke, "search", command->search ? "1" : "0");
    field_add(invoke, "cwd", cwd);
    vantage_describe(invoke);
    field_add(invoke, "umask", octal);
    stdin_describe(invoke);
    output_describe(invoke, command);
    field_add_number(invoke, "pid", getpid());
    inheritance_describe(invoke, command);
    for (char **word = command->notes; word && word < command->argv; word++)
        if (is_note(*word))
            field_add(invoke, "note", *word + 2);
    for (char **word = command->argv; *word; word++)
        field_add(invoke, "arg", *word);
    add_environment(invoke);
}

bool make_invocation(struct buffer *frame, const struct command *command, const char *cwd, const char *token)
{
    buffer_add(frame, "\0\0\0\0I", 5);
    add_invocation(frame, command, cwd, token);
    if (frame->failed || frame->length - 5 > UINT32_MAX)
        return false;
    uint32_t length = (uint32_t)(frame->length - 5);
    for (int i = 0; i < 4; i++)
        frame->bytes[i] = (char)(length >> (8 * i));
    return true;
}
