"""Commands as values, for tests of the table of known tools."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from termite.cli.master_command import BUILT_IN_PLUGINS
from termite.engine.decide.loaded_plugins import Plugins
from termite.engine.recall.known.known_table import CommandFacts, Known, KnownTable, NotKnown, proof_of_table
from termite.engine.recall.logic.dependencies import DependencySet
from termite.engine.recall.logic.interpreters import ELF_HEAD
from termite.engine.recall.logic.tree_facts import FactsMissing, TreeFacts
from termite.engine.recall.logic.uses import EXEC, READ, Dependency, PathSet
from termite.engine.recall.look_up.fingerprints import CommandIdentity
from tests.unit.engine.recall.recall_trees import directory, file, tree_of

TABLE = KnownTable(Plugins(BUILT_IN_PLUGINS).known_tools())
ELF = ELF_HEAD.decode()
DRIVER = ELF + "COLLECT_GCC_OPTIONS SOURCE_DATE_EPOCH"
AR = ELF + "use zero for timestamps and uids/gids (default)"
# The program files of a machine, and what is in them.
PROGRAMS = {
    "usr/bin/x86_64-linux-gnu-gcc-12": DRIVER,
    "usr/bin/dash": ELF + "OPTIND",
    "usr/bin/ar": AR,
    "usr/bin/x86_64-linux-gnu-ld.bfd": ELF + "GNU ld",
    "usr/bin/sed": ELF + "GNU sed",
    "usr/bin/cp": ELF + "GNU coreutils",
    "usr/bin/termite": ELF + "TERMITE_LOCAL",
    "usr/lib/gcc/cc1": ELF + "COLLECT_GCC_OPTIONS",
    "usr/bin/as": ELF + "GNU assembler",
}
COMPILED_BY = ("usr/bin/x86_64-linux-gnu-gcc-12", "usr/lib/gcc/cc1", "usr/bin/as")
SHELL_BY = ("usr/bin/dash",)


def judge(
    *argv: str,
    tools: Sequence[str] = COMPILED_BY,
    reads: Mapping[str, str] | None = None,
    programs: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    asked: Iterable[bytes] = (),
    messages: bytes = b"",
    exe: str = "",
    machine: bytes = b"",
    table: KnownTable = TABLE,
) -> Known | NotKnown:
    """Return the answer of the table about a command that executed `tools` and read `reads`."""
    contents = {**PROGRAMS, **(programs or {}), **(reads or {"w/x.c": "int x;"})}
    entries = {path.encode(): file(content) for path, content in contents.items()}
    for path in list(entries):
        while path := path.rpartition(b"/")[0]:
            entries[path] = directory()
    tree = tree_of(entries)
    uses = {**dict.fromkeys(reads or ("w/x.c",), READ), **dict.fromkeys(tools, READ | EXEC)}
    path_set = PathSet(tuple(Dependency(path.encode(), use) for path, use in sorted(uses.items())))
    facts_of_job = DependencySet(path_set, tuple(path.encode() for path in tools), tuple(asked), has_set_times=False)
    words = tuple(word.encode(errors="surrogateescape") for word in argv)
    variables = tuple(f"{name}={text}".encode() for name, text in (env or {}).items())
    identity = CommandIdentity(words, exe.encode() or words[0], True, b"/w", variables, 0o22, b"w", machine=machine)
    texts: dict[tuple[bytes, tuple[bytes, ...]], frozenset[bytes]] = {}
    by_digest = {hashlib.sha256(content.encode()).digest(): content.encode() for content in contents.values()}
    for _ in range(3):
        try:
            return proof_of_table(table, CommandFacts(identity, facts_of_job, messages), TreeFacts(tree, None, texts))
        except FactsMissing as missing:
            assert not missing.directories
            assert not missing.contents
            for _, sha256, wanted in missing.texts:
                texts[sha256, wanted] = frozenset(text for text in wanted if text in by_digest[sha256])
    raise AssertionError("the same facts are missing again and again")


def reason(answer: Known | NotKnown) -> str:
    """Return the reason of a refusal, or "" if the command is known."""
    return answer.reason if isinstance(answer, NotKnown) else ""
