/* Write the filter of traced jobs as the kernel gets it: u32 count, then its steps. The ids are
 * those of an ordinary user. `dump_trace_filter compiler` writes the filter for compilers. */
#include "trace/trace_filter.c"

int main(int argc, char **argv)
{
    struct ids own = {.uid = 1000, .gid = 1000};
    (void)argv;
    if (make_trace_filter(argc > 1, &own))
        return 1;
    uint32_t count = (uint32_t)traced.count;
    fwrite(&count, sizeof count, 1, stdout);
    fwrite(traced.steps, sizeof *traced.steps, count, stdout);
    return 0;
}
