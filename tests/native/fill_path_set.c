/* Note paths of SIZE bytes in a set until it is full. Write the set to stdout. */
#include "trace/path_set.c"

int main(int argc, char **argv)
{
    static char path[1 << 20];
    int size = argc > 1 ? atoi(argv[1]) : 0, count = 0;
    do {
        memset(path, 'x', (size_t)size);
        path[snprintf(path, 16, "/%d", count)] = '-';
    } while (note_path(path, (size_t)size, 1u + (unsigned)count % 2) && ++count);
    return !write_paths(STDOUT_FILENO);
}
