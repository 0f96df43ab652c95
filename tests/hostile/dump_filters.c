/* Write the filters as the kernel gets them: u32 count, then their steps.
 *
 * The filters of all machines are written, so that the tables of other machines are tested, too:
 * without watched calls, then those of the ids UID GID, with a listener and without. */
#include "call_filter.c"

static int dump(const struct machine *machine, const struct ids *own, bool has_listener)
{
    struct filter filter;
    if (!make_filter(&filter, machine, own, has_listener))
        return 1;
    uint32_t count = (uint32_t)filter.count;
    fwrite(&count, sizeof count, 1, stdout);
    fwrite(filter.steps, sizeof *filter.steps, count, stdout);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    struct ids own = {(uint32_t)strtoul(argv[1], NULL, 10), (uint32_t)strtoul(argv[2], NULL, 10)};
    for (size_t i = 0; i < sizeof MACHINES / sizeof *MACHINES; i++)
        if (dump(&MACHINES[i], NULL, false) || dump(&MACHINES[i], &own, true) || dump(&MACHINES[i], &own, false))
            return 1;
    return this_machine() ? 0 : 2;
}
