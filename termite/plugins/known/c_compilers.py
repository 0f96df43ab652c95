"""Known compilers of C and C++: gcc and clang, and the programs that gcc executes.

Options are judged by what they do to the result. A group of options that is known to hold others is
refused as a whole, such as files of options.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from termite import NOT_CALLED, KnownTool, ToolCall, Vouch, refuse_all
from termite.plugins.known.linkers import ELF_PREFIX, names_objects, refused_link_word
from termite.plugins.known.tool_options import word_set

CLOCK_MACROS: tuple[str, ...] = ("__DATE__", "__TIME__", "__TIMESTAMP__")
# What gcc and clang call their temporary files. Messages of assemblers and linkers name these.
TEMPORARY_NAME = r"/cc[A-Za-z0-9]{6}\.[a-z]|-[0-9a-f]{6,}\.[a-z]"
_CLOCK = re.compile("|".join(CLOCK_MACROS))

# They name other programs, files of options, or files for messages and dependencies.
_REFUSED_VARIABLES = re.compile(
    r"GCC_EXEC_PREFIX|COMPILER_PATH|GCC_COMPARE_DEBUG|COLLECT_.*|CC_(?:PRINT|LOG)_.*|CCC_.*|QA_OVERRIDE_.*"
    r"|CLANG_CONFIG_FILE.*|LDEMULATION|GNUTARGET|DEPENDENCIES_OUTPUT|SUNPRO_DEPENDENCIES"
)
_TAKES_A_WORD = word_set(
    "-o -I -D -U -include -imacros -isystem -iquote -idirafter -iprefix -iwithprefix -isysroot -MF -MT -MQ -x -L -l"
    " -T -u -z -e -h -target --param --sysroot -soname"
)
_REFUSED = (
    (r"@.*", "a file of options"),
    (r"-", "a text from standard input"),
    (r"-B.*|-wrapper|--?specs.*|-specs|--config.*|-no-integrated-cpp|-Xclang.*|-mllvm.*", "other programs or options"),
    (r"-f(?:plugin|pass-plugin|load).*|-fuse-ld=/.*", "other programs or options"),
    (r"-f(?:profile|test-coverage|auto-profile|cs-profile|branch-prob|coverage).*|--coverage", "profiles"),
    (r"-f(?:dump|time|mem|compare-debug|report|stats|save|crash|self-test|diagnostics-format|sarif).*", "reports"),
    (r"-v|-###|-time.*|-Q|-p|-d(?![MDNIU]).*|-print.*|--help.*|--version|--target-help|-dump.*", "reports"),
    (r"-f(?:modules?|implicit-module|pch|emit|build-session|index|thinlto|openacc|offload|gnu-tm).*", "modules"),
    (r"-gmodules|-emit-.*|-index.*|-working-directory.*|-O(?:Xclang).*", "modules"),
)
_ALLOWED = re.compile(
    r"-[cSEswrPCHM]|-CC|-O\w*|-g.*|-W(?![alp],).*|-f.+|-m.+|-[DUILlTuzxeh].+|-o.+|-std=.*|-ansi|-pedantic.*|-pthread"
    r"|-pipe|-shared.*|-static.*|-pie|-no-pie|-nostd.*|-nodefaultlibs|-nostartfiles|-rdynamic|-M[MDPGFTQ].*|-pg"
    r"|-d[MDNIU]|-undef|-traditional.*|-(?:iquote|isystem|idirafter|include|imacros|iprefix|iwithprefix|isysroot).*"
    r"|--sysroot=.*|--param=.*|-save-temps(?:=.*)?|--target=.*|-Q(?:n|unused-arguments)|-rtlib=.*|-stdlib.*|-unwindlib=.*"
)
# Debug information and lists of files would have the name of the temporary text that as reads.
_ASSEMBLER_WORD = re.compile(
    r"--(?:32|64|x32|noexecstack|execstack|fatal-warnings|no-warn|warn)|-L|-W|-I.+|-m(?!.*native).+"
)
_LANGUAGES = word_set("c c++ assembler assembler-with-cpp cpp-output c++-cpp-output none")
_SOURCE = re.compile(r".*\.(?:c|cc|cp|cpp|cxx|c\+\+|C|CPP|S|sx|i|ii)")
_HEADER = re.compile(r".*\.(?:h|hh|hp|hpp|hxx|h\+\+|H|tcc|inl|pch|gch)")
_ELF_TARGET = re.compile(r".*(?:linux|elf|none|eabi).*")
_NO_RESULT = frozenset({"-E", "-fsyntax-only", "-M", "-MM"})


@dataclass(slots=True)
class _Scan:
    """The words of a compiler, sorted."""

    plain: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    link_words: list[str] = field(default_factory=list)
    valued: list[tuple[str, str]] = field(default_factory=list)

    @property
    def is_link(self) -> bool:
        """Return whether the compiler is to call the linker."""
        return not any(word in ("-c", "-S") or word in _NO_RESULT for word in self.plain)

    @property
    def has_language(self) -> bool:
        """Return whether an option names the language of the inputs."""
        return any(option == "-x" for option, _ in self.valued) or any(word.startswith("-x") for word in self.plain)


def _judge_gcc(call: ToolCall) -> Vouch | str:
    return _judge(call, is_clang=False)


def _judge_clang(call: ToolCall) -> Vouch | str:
    return _judge(call, is_clang=True)


def _judge(call: ToolCall, *, is_clang: bool) -> Vouch | str:
    for name, value in call.env.items():
        if value and _REFUSED_VARIABLES.fullmatch(name):
            return f"{name} is set"
    scan = _Scan()
    if reason := next(filter(None, _refused(call.args, scan)), "") or _refused_mode(scan, call.name):
        return reason
    is_one_step = scan.is_link and any(not re.fullmatch(r".*\.(?:o|a|so|lo)(?:[.0-9]*)", path) for path in scan.inputs)
    if is_one_step and (names_objects(scan.link_words) or any(word.startswith("-save-temps") for word in scan.plain)):
        return "names of temporary files in a result"
    texts, program_texts = CLOCK_MACROS, tuple[str, ...]()
    if call.env.get("SOURCE_DATE_EPOCH", "").isdigit() and not is_clang:  # clang 14 does not know it
        texts, program_texts = CLOCK_MACROS[2:], ("SOURCE_DATE_EPOCH",)
    is_compiled = scan.has_language or any(_SOURCE.fullmatch(path) for path in scan.inputs)
    return Vouch(
        asks_machine=any("=native" in word for word in scan.plain),
        # With -pipe, two processes write messages at once.
        unwanted_messages=r"[^\0]" if "-pipe" in scan.plain else TEMPORARY_NAME,
        makes_text=any(word in ("-E", "-S") for word in scan.plain),
        unwanted_texts=texts if is_compiled else (),
        unwanted_inputs=("specs", "*.gch", "*.pch", "*.pcm", "*.gcm", *(("*.cfg",) if is_clang else ())),
        program_texts=program_texts if is_compiled else (),
    )


def _refused(args: Sequence[str], scan: _Scan) -> Iterator[str]:
    """Yield a reason for each word that is refused, or "", and sort the words."""
    words = iter(args)
    for word in words:
        if _CLOCK.search(word):
            yield "a clock in an option"
        if word in ("-Xlinker", "-Xassembler", "-Xpreprocessor"):
            scan.link_words.append(next(words, ""))
            yield "" if word == "-Xlinker" else f"the option {word}"
        elif word in _TAKES_A_WORD:
            scan.valued.append((word, value := next(words, "")))
            yield "a clock in an option" if _CLOCK.search(value) else _refused_value(word, value)
        elif word[:4] in ("-Wl,", "-Wa,", "-Wp,"):
            yield _refused_list(word, scan)
        elif reason := _refused_option(word):
            yield reason
        elif word.startswith("-"):
            scan.plain.append(word)
            if word[:2] == "-x":
                yield _refused_value("-x", word[2:])
            if not _ALLOWED.fullmatch(word):
                yield f"the option {word}"
        else:
            scan.inputs.append(word)


def _refused_option(word: str) -> str:
    return next((f"{reason}: {word}" for pattern, reason in _REFUSED if re.fullmatch(pattern, word)), "")


def _refused_value(option: str, value: str) -> str:
    if option == "-x" and value not in _LANGUAGES:
        return f"the language {value}"
    if option in ("-target", "--target") and not _ELF_TARGET.fullmatch(value):
        return f"the target {value}"
    return ""


def _refused_list(word: str, scan: _Scan) -> str:
    """Return the reason to refuse a word with options for the linker, assembler or preprocessor."""
    parts = word[4:].split(",")
    if word.startswith("-Wl,"):
        scan.link_words += parts
        return ""
    if word.startswith("-Wa,"):
        is_known = all(_ASSEMBLER_WORD.fullmatch(part) for part in parts)
        return "" if is_known else f"the option {word}"
    is_known = all(re.fullmatch(r"-M[MDPGFTQ]*|-[DUI].+|[^-@].*", part) for part in parts)
    return "" if is_known else f"the option {word}"


def _refused_mode(scan: _Scan, name: str) -> str:
    words = scan.plain
    for word in words:
        if word.startswith("--target=") and not _ELF_TARGET.fullmatch(word[9:]):
            return f"the target {word[9:]}"
    is_quiet = any(word in _NO_RESULT for word in words)
    if any(_HEADER.fullmatch(path) for path in scan.inputs) and not scan.has_language and not is_quiet:
        return "a precompiled header"
    if any(word.startswith("-flto") for word in words):
        has_seed = any(word.startswith("-frandom-seed=") for word in words)
        if scan.is_link or not has_seed:
            return "link-time optimization without a seed, or at the link"
    if not scan.inputs:
        return f"{name} without an input"
    return refused_link_word(scan.link_words)


def _judge_as(call: ToolCall) -> Vouch | str:
    if call.env.get("GNUTARGET"):
        return "GNUTARGET is set"
    if all(word.startswith("-") for word in call.args):
        return "a text from standard input"
    # A listing has the time, and statistics have the run time.
    refused = [word for word in call.args if re.fullmatch(r"@.*|-a.*|--?statistics|--?version|-v|--?verbose", word)]
    return f"the option {refused[0]}" if refused else Vouch()


_VERSION = r"(?:-\d+(?:\.\d+)*)?"
_LINKED_BY = ("ld", "gold", "lld")
COMPILERS = (
    KnownTool(
        "gcc",
        rf"{ELF_PREFIX}(?:gcc|g\+\+|cc|c\+\+|c89|c99){_VERSION}",
        ("COLLECT_GCC_OPTIONS",),
        _judge_gcc,
        helpers=("cc1", "as", "collect2", "objcopy", *_LINKED_BY),
    ),
    KnownTool("cc1", NOT_CALLED, ("COLLECT_GCC_OPTIONS",), refuse_all, programs="cc1|cc1plus"),
    KnownTool("as", rf"{ELF_PREFIX}as", ("GNU assembler",), _judge_as),
    KnownTool("clang", rf"clang(?:\+\+)?{_VERSION}", ("cc1gen-reproducer",), _judge_clang, helpers=("as", *_LINKED_BY)),
)
