/* Parse any command line of the launcher, and make its invocation, which must have each word as it
 * was.
 *
 * The words of the input have a NUL between them; the first byte chooses the launcher's name. */
#include "../process.h"
#include "../../../native/launcher/launcher.h"
#include "../../../native/shared/fields.h"

enum { MOST_WORDS = 512 };

ssize_t __real_write(int fd, const void *bytes, size_t length);
ssize_t __wrap_write(int fd, const void *bytes, size_t length);

static char *words[MOST_WORDS + 2];
static struct buffer frame;

ssize_t __wrap_write(int fd, const void *bytes, size_t length)
{
    return is_running() ? (ssize_t)length : __real_write(fd, bytes, length);
}

/* Check that the fields `arg` of the frame are the words of `argv`. */
static void check_frame(char **argv)
{
    char *cursor = frame.bytes + 5, *end = frame.bytes + frame.length, *key, *value;
    bool malformed = false, in_environment = false;
    size_t length = 0;
    for (int i = 3; i >= 0; i--)
        length = length << 8 | (unsigned char)frame.bytes[i];
    expect(length == frame.length - 5, "the length of the frame is right");
    while (field_next(&cursor, end, &key, &value, &malformed)) {
        in_environment = in_environment || strcmp(key, "env") == 0;
        expect(!in_environment || strcmp(key, "env") == 0, "the environment comes last");
        if (strcmp(key, "arg") == 0)
            expect(*argv && strcmp(*argv++, value) == 0, "each word comes as it was");
    }
    expect(!malformed && !*argv, "all words come");
}

static void invoke(void *nothing)
{
    struct command command = parse_command_line(words);
    expect(command.exe && command.argv[0], "a command has a program and a first word");
    frame = (struct buffer){0};
    expect(make_invocation(&frame, &command, "/directory", "0123456789abcdef"), "the frame is made");
    check_frame(command.argv);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    static char launcher[] = "/usr/bin/termite", shell[] = "termite-shell";
    if (size < 1)
        return 0;
    char *text = guarded_copy(input, size);
    size_t count = 0;
    words[count++] = input[0] & 1 ? shell : launcher;
    text[size - 1] = '\0';
    for (char *at = text + 1; at < text + size && count <= MOST_WORDS; at += strlen(at) + 1)
        words[count++] = at;
    words[count] = NULL;
    int code = run_to_end(invoke, NULL);
    expect(code == RETURNED || code == EXIT_FAILED || code == 0, "a wrong command line is refused");
    free(text);
    return 0;
}
