/* Set the options of the address sanitizer, for the build of `make sanitize`.
 *
 * They are compiled in, because many tests start the programs with an empty environment. Leaks are
 * not detected: the leak sanitizer stops processes with ptrace, which fails for a process that is
 * not dumpable. */
const char *__asan_default_options(void);

__attribute__((visibility("default"), used)) const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}
