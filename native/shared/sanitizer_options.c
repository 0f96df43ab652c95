/* Options of the address sanitizer, for the build of `make sanitize`. They are compiled in, because many tests start the
 * programs with an empty environment. The leak sanitizer stops every process with ptrace, which a process that is not
 * dumpable does not allow. */
const char *__asan_default_options(void);

__attribute__((visibility("default"), used)) const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}
