"""Check that documents are readable, that links lead somewhere, and that nothing is missing."""

import functools
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from termite.engine.wire.protocol import launcher_frames, message_base, messages

TOP = Path(__file__).parents[2]
PROTOCOL = (TOP / "docs" / "develop" / "protocol.md").read_text()
FOLDERS = ("docs", "examples", "patches")
CODE_FOLDERS = ("bench", "native", "termite", "tests", "tools")
DOCUMENTS = sorted([*TOP.glob("*.md"), *(path for folder in FOLDERS for path in (TOP / folder).rglob("*.md"))])
MAX_COLUMNS = 100
MAX_WORDS = 25  # of a sentence; a piece of code is one word

_LINK_TARGET = re.compile(r"\]\([^)]*\)|https?://\S+")
_CODE = re.compile(r"`[^`]*`")
# A full stop, perhaps in front of a quotation mark or a bracket. The first word of a sentence
# follows.
_SENTENCE_END = re.compile(r"(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)[.?!][)\"*]*(?:\s+|$)(?=[A-Z0-9`*\[\"(]|termite\b|$)")
_REPOSITORY_PATH = re.compile(r"(?<![\w/.~-])(?:termite|native|tests|tools|bench|examples|patches|docs)/[\w.*/-]*[\w*]")
# Names, and then a file that has them.
_PLACED_NAMES = re.compile(
    r"((?:`[A-Za-z_][\w.]*`(?:,| and|, and)?\s+)+)(?:in|of|\()\s*"
    r"\(?`((?:termite|native|tests|bench|tools)/[\w./-]+\.(?:py|c|h))`"
)
NAMES_OF_OTHERS = {"redirect_dir"}  # the kernel
_DOCUMENT_NAME = re.compile(r"\bdocs/[\w./-]+\.md\b|\b[A-Z]+\.md\b")


@dataclass(frozen=True)
class Block:
    """A block is a paragraph or the text of a list item, but no heading, table or code."""

    first_line: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """Return its lines as one, without the sign and the label of a list's item."""
        item = r"^\s*(?:[*-]|\d+\.)\s+(?:\*\*[^*]+:\*\*\s)?"
        return re.sub(item, "", " ".join(line.strip() for line in self.lines))


@functools.cache
def tokens(document: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(document.read_text())


@functools.cache
def blocks(document: Path) -> tuple[Block, ...]:
    return tuple(_blocks(document))


def _blocks(document: Path) -> Iterator[Block]:
    lines = document.read_text().split("\n")
    for opening, inline in itertools.pairwise(tokens(document)):
        if opening.type == "paragraph_open" and inline.map:
            first, end = inline.map
            yield Block(first + 1, tuple(lines[first:end]))


def cells(document: Path) -> Iterator[str]:
    """Yield the text of each cell of the tables of a document."""
    for opening, inline in itertools.pairwise(tokens(document)):
        if opening.type in ("td_open", "th_open"):
            yield inline.content


@functools.cache
def sentences(text: str) -> list[str]:
    code_free = _CODE.sub("`CODE`", _LINK_TARGET.sub("]", text))
    return [sentence for sentence in _SENTENCE_END.split(code_free) if sentence.strip()]


def name_of(document: Path) -> str:
    return str(document.relative_to(TOP))


def test_the_documents_are_found() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/develop/protocol.md"} <= {name_of(path) for path in DOCUMENTS}


def test_no_line_of_prose_is_longer_than_100_columns() -> None:
    long_lines = [
        f"{name_of(document)}:{block.first_line + offset}: {len(line)} columns"
        for document in DOCUMENTS
        for block in blocks(document)
        for offset, line in enumerate(block.lines)
        if len(_LINK_TARGET.sub("]()", line)) > MAX_COLUMNS
    ]
    assert long_lines == []


def test_each_sentence_begins_on_a_line_of_its_own() -> None:
    crowded = [
        f"{name_of(document)}:{block.first_line + offset}: {line}"
        for document in DOCUMENTS
        for block in blocks(document)
        for offset, line in enumerate(block.lines)
        if len(sentences(Block(0, (line,)).text)) > 1
    ]
    assert crowded == []


def test_no_sentence_has_more_than_25_words() -> None:
    long_sentences = [
        f"{name_of(document)}:{block.first_line}: {len(sentence.split())} words: {sentence}"
        for document in DOCUMENTS
        for block in blocks(document)
        for sentence in sentences(block.text)
        if len(sentence.split()) > MAX_WORDS
    ]
    assert long_sentences == []


def test_no_sentence_of_a_table_has_more_than_25_words() -> None:
    long_sentences = [
        f"{name_of(document)}: {len(sentence.split())} words: {sentence}"
        for document in DOCUMENTS
        for cell in cells(document)
        for sentence in sentences(cell)
        if len(sentence.split()) > MAX_WORDS
    ]
    assert long_sentences == []


def test_no_sentence_begins_with_a_word_that_refers_to_another_one() -> None:
    vague = [
        f"{name_of(document)}:{block.first_line}: {sentence}"
        for document in DOCUMENTS
        for block in blocks(document)
        for sentence in sentences(block.text)
        if re.match(r"[*\"(]*(?:What|Who|Of|That|It|So|As|Whether|Until|The same)\b", sentence)
    ]
    vague += [
        f"{name_of(document)}: {sentence}"
        for document in DOCUMENTS
        for cell in cells(document)
        for sentence in sentences(cell)
        if re.match(r"(?:Of|So|That)\b", sentence)  # a cell may hold a question
    ]
    assert vague == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One. Two.", 2),
        ("It takes 2.5 ms, e.g. for `a. B`.", 1),
        ("See [there](a.md). `make` runs.", 2),
        ("(Really.) Yes!", 2),
    ],
)
def test_sentences_are_told_apart(text: str, count: int) -> None:
    assert len(sentences(text)) == count


def test_every_link_within_the_repository_leads_somewhere() -> None:
    broken = []
    for document in DOCUMENTS:
        for child in itertools.chain.from_iterable(token.children or () for token in tokens(document)):
            target = str(child.attrGet("href") or "")
            if target and not re.match(r"[a-z]+:", target) and not is_there(document, target):
                broken.append(f"{name_of(document)}: {target}")
    assert broken == []


def is_there(document: Path, target: str) -> bool:
    """Return True if the file of a link exists, and the heading that the link names, if any."""
    name, _, anchor = target.partition("#")
    path = document.parent / name if name else document
    return path.exists() and (not anchor or anchor in anchors(path))


def anchors(document: Path) -> set[str]:
    """Return the anchors of its headings, as GitHub makes them."""
    pairs = itertools.pairwise(tokens(document))
    headings = [inline for opening, inline in pairs if opening.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", heading.content.lower()).replace(" ", "-") for heading in headings}


def test_every_file_of_the_repository_that_a_document_names_exists() -> None:
    for document in DOCUMENTS:
        text = _LINK_TARGET.sub("]", document.read_text())
        missing = {name for name in _REPOSITORY_PATH.findall(text) if not any(TOP.glob(name))}
        assert missing == set(), name_of(document)


def test_every_document_that_the_code_names_exists() -> None:
    files = [
        path for folder in CODE_FOLDERS for path in (TOP / folder).rglob("*") if path.suffix in (".py", ".c", ".h")
    ]
    assert len(files) > 200
    named = {name for path in files if path != Path(__file__) for name in _DOCUMENT_NAME.findall(path.read_text())}
    assert "docs/develop/protocol.md" in named
    assert {name for name in named if not (TOP / name).exists()} == set()


def test_every_message_between_daemons_is_described() -> None:
    assert messages.PROTOCOL, "the module has made the classes"
    names = {message.__name__ for message in message_base.Message.__subclasses__()}
    assert len(names) > 15
    assert {name for name in names if not re.search(rf"\b{name}\b", PROTOCOL)} == set()


def test_every_frame_of_a_launcher_is_described() -> None:
    kinds = {kind.decode() for kind in vars(launcher_frames).values() if isinstance(kind, bytes) and len(kind) == 1}
    assert len(kinds) > 10
    assert {kind for kind in kinds if f"`{kind}`" not in PROTOCOL} == set()


def test_every_method_that_a_document_for_developers_names_exists() -> None:
    """Find `Class.method` in the code, because a maintainer will search for it."""
    code = "\n".join(path.read_text() for folder in ("bench", "termite") for path in (TOP / folder).rglob("*.py"))
    documents = [path for path in DOCUMENTS if "develop" in path.parts or path.name == "CONTRIBUTING.md"]
    named = {
        (owner, member)
        for path in documents
        for owner, member in re.findall(r"`(_?[A-Z]\w+)\.(?!txt|md|json)(\w+)`", path.read_text())
    }
    assert len(named) > 40
    classes, members = set(re.findall(r"class (\w+)", code)), set(re.findall(r"(?:def |self\.)(\w+)", code))
    assert {f"{owner}.{member}" for owner, member in named if owner not in classes or member not in members} == set()


def test_names_of_code_exist_where_a_document_places_them() -> None:
    """A document may say "`name` in `file`" or "`name` (`file`)"."""
    for document in DOCUMENTS:
        for found in _PLACED_NAMES.finditer(document.read_text()):
            words = set(re.findall(r"\w+", (TOP / found[2]).read_text()))
            for name in re.findall(r"`([^`]+)`", found[1]):
                assert name.rpartition(".")[2] in words, f"{name_of(document)}: {name} is not in {found[2]}"


def test_names_of_code_in_documents_for_developers_exist() -> None:
    folders = [
        path for folder in CODE_FOLDERS for path in (TOP / folder).rglob("*") if path.suffix in {".py", ".c", ".h"}
    ]
    words = {word for path in folders for word in re.findall(r"\w+", path.read_text())}
    for document in (TOP / "docs" / "develop").glob("*.md"):
        for name in set(re.findall(r"`([A-Za-z_]\w*(?:\.\w+)?)(?:\(\))?`", document.read_text())) - NAMES_OF_OTHERS:
            if "_" in name or re.match(r"[A-Z]\w*\.", name):
                assert set(name.split(".")) <= words, f"{name_of(document)}: there is no {name}"
