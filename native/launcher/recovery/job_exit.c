/* End as the job has ended, which the master says in a frame `E`, or else its plan. */
#include "../launcher.h"
#include "../../shared/fields.h"

#include <limits.h>
#include <signal.h>

bool parse_exit(char *fields, size_t length, struct job_exit *exit)
{
    char *end = fields + length, *key, *value;
    bool malformed = false;
    *exit = (struct job_exit){.code = -1, .stdin_offset = -1};
    while (field_next(&fields, end, &key, &value, &malformed)) {
        unsigned long long number = 0;
        bool is_code = strcmp(key, "code") == 0, is_signal = strcmp(key, "signal") == 0;
        bool is_offset = strcmp(key, "stdin_offset") == 0, is_taken = strcmp(key, "stdin_taken") == 0;
        unsigned long long most = is_code ? 255 : is_signal ? (unsigned)SIGRTMAX : is_offset ? LLONG_MAX : ULLONG_MAX;
        if ((is_code || is_signal || is_offset || is_taken) && !parse_number(value, 10, most, &number))
            malformed = true;
        else if (is_code)
            exit->code = (int)number;
        else if (is_signal)
            exit->signal = (int)number;
        else if (is_offset)
            exit->stdin_offset = (off_t)number;
        else if (is_taken)
            exit->stdin_taken = number;
    }
    return !malformed && (exit->signal > 0 || exit->code >= 0);
}

_Noreturn void end_like_job(const struct job_exit *exit)
{
    if (exit->stdin_offset >= 0)
        stdin_leave_at(exit->stdin_offset);
    stdin_drop(exit->stdin_taken);
    if (exit->signal > 0)
        end_by_signal(exit->signal);
    _exit(exit->code);
}
