/* Write the filter of each machine as the kernel gets it: u32 count, then its steps. The filters of
 * all machines are written, so that the tables of other machines are tested, too. */
#include "call_filter.c"

int main(void)
{
    for (size_t i = 0; i < sizeof MACHINES / sizeof *MACHINES; i++) {
        struct filter filter;
        if (!make_filter(&filter, &MACHINES[i]))
            return 1;
        uint32_t count = (uint32_t)filter.count;
        fwrite(&count, sizeof count, 1, stdout);
        fwrite(filter.steps, sizeof *filter.steps, count, stdout);
    }
    return this_machine() ? 0 : 2;
}
