/* Parse the command line of termite and of termite-shell, which is the same program under another
 * name.
 *
 * Not every word before the command is an option: any other --NAME=VALUE is a note for plugins. */
#include "launcher.h"
#include "../shared/fields.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char USAGE[] =
    "usage: termite COMMAND [ARGUMENT...]\n"
    "\n"
    "Runs COMMAND through the termite master of this directory tree (the nearest " SOCKET_NAME " upwards, or\n"
    "$TERMITE_SOCKET): on another machine, unless a rule keeps COMMAND on this one. Without a master, termite\n"
    "just executes COMMAND here, and says nothing; with TERMITE_LOCAL=never, it exits with 103 instead.\n"
    "termite-ctl start, termite-make and the like start a master; termite does not.\n"
    "With TERMITE=off, termite is COMMAND and asks no master.\n"
    "termite reads, writes and ends exactly as COMMAND itself would.\n"
    "\n"
    "termite-shell ARGUMENT... does the same with $TERMITE_SHELL (or /bin/sh) as the command.\n"
    "\n"
    "  --help      print this text\n"
    "  --version   print the version\n"
    "  --WORD=...  pass a note to the master's plugins (--cmake=compile --object=x.o)\n"
    "  --          end the options; the command follows\n";

/* Return the value if `word` is the option `name`, which ends in "=". Return NULL if it is another
 * word. */
static const char *option(const char *word, const char *name)
{
    size_t length = strlen(name);
    return strncmp(word, name, length) == 0 ? word + length : NULL;
}

bool is_note(const char *word)
{
    const char *equals = strchr(word, '=');
    return strncmp(word, "--", 2) == 0 && equals && equals > word + 2 && !option(word, "--preload=") &&
           !option(word, "--exe=") && !option(word, "--search=");
}

/* End this process with EXIT_FAILED, after a line with `message` and `word`. */
static _Noreturn void refuse(const char *message, const char *word)
{
    dprintf(STDERR_FILENO, "termite: %s%s (see termite --help)\n", message, word);
    exit(EXIT_FAILED);
}

/* Parse the command line that a build tool has made for its shell: the arguments are all the
 * shell's. */
static void parse_shell(char **argv, struct command *command)
{
    const char *shell = getenv("TERMITE_SHELL");
    command->how = "shell";
    command->exe = shell && *shell ? shell : "/bin/sh";
    command->search = !strchr(command->exe, '/');
    /* Programs read a shell's version from its stdout, so that ours stands on stderr. */
    if (argv[1] && !argv[2] && strcmp(argv[1], "--version") == 0)
        dprintf(STDERR_FILENO, "termite: termite-shell %s\n", TERMITE_VERSION);
    argv[0] = (char *)command->exe;
    command->argv = argv;
}

static void parse_termite(char **argv, struct command *command)
{
    const char *value;
    char **word = argv + 1;
    for (; *word && (*word)[0] == '-'; word++) {
        if (strcmp(*word, "--") == 0) {
            word++;
            break;
        }
        if (strcmp(*word, "--help") == 0) {
            write_whole(STDOUT_FILENO, USAGE, sizeof USAGE - 1);
            exit(0);
        } else if (strcmp(*word, "--version") == 0) {
            dprintf(STDOUT_FILENO, "termite %s\n", TERMITE_VERSION);
            exit(0);
        } else if ((value = option(*word, "--preload="))) {
            command->how = "preload";
            command->tool = value;
        } else if ((value = option(*word, "--exe="))) {
            command->exe = value;
        } else if ((value = option(*word, "--search="))) {
            command->search = strcmp(value, "0") != 0;
        } else if (!is_note(*word)) {
            refuse("no such option: ", *word);
        }
    }
    command->notes = argv + 1;
    if (!*word)
        refuse("no command given", "");
    command->argv = word;
    if (!command->exe)
        command->exe = *word;
}

struct command parse_command_line(char **argv)
{
    struct command command = {.how = "direct", .tool = "", .search = true};
    const char *slash = strrchr(argv[0], '/');
    if (strcmp(slash ? slash + 1 : argv[0], "termite-shell") == 0)
        parse_shell(argv, &command);
    else
        parse_termite(argv, &command);
    return command;
}
