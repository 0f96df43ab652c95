"""Check the prose of the tree: line width, first words of docstrings, length of sentences.

    python tools/check_prose.py [PATH...]

Each PATH is a file, or a folder whose tracked files are checked. The default is the whole checkout.
The program prints `FILE:LINE: MESSAGE` for each finding, and exits with 1 if there is any.

Code may be wider than prose, so a comment after code is not checked. Neither are literal blocks of
docstrings and Markdown, which are indented.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
MAX_COLUMNS = 100
MAX_WORDS = 30  # the rule is 25; a sentence with names and numbers may have some more
MAX_HELP_WORDS = 25  # a text of `--help` is read in a narrow column
_HELP_KEYWORDS = ("help", "more", "description", "epilog")
_HELP = re.compile(rf"\b(?:{'|'.join(_HELP_KEYWORDS)})=")
# A sentence that begins with one of these has no subject, or an unclear one.
_FIRST = re.compile(r"(As|How|It|Of|So|That|The same|Until|What|Whatever|Where|Whether|Which|Who|Whose|Why)\b")
# Nor has any later sentence of a docstring that begins with one of these.
_VAGUE = re.compile(r"(How|Of|So|That|What|Whatever|Whether|Who|Whose|Why)\b")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')`]*\s+(?=[\"'(`]*(?:[A-Z0-9`]|termite\b))")
_QUOTES = re.compile(r"^[rRuUbB]*(\"\"\"|'''|\"|')")
_ITEM = re.compile(r"(?:[*-]|\d+\.)\s")
_UNBREAKABLE = re.compile(r"https?://|-{10}")
_BLOCKS = ("body", "orelse", "handlers", "finalbody", "cases")  # fields of a statement that hold statements
# A C comment, or else a literal in which the beginning of a comment means nothing.
_C_TOKEN = re.compile(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding is one line that breaks a rule; `line` counts from 1."""

    line: int
    message: str


def main() -> None:
    """Check the files that the command line names, and exit with 1 if there are findings."""
    count = 0
    for path in tracked_files([Path(word) for word in sys.argv[1:]] or [CHECKOUT]):
        for finding in check_text(path.suffix, path.read_text(errors="replace")):
            print(f"{path}:{finding.line}: {finding.message}")
            count += 1
    sys.exit(1 if count else 0)


def tracked_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the given files, and those files below given folders that git tracks."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        command = ["git", "-C", str(path), "ls-files", "-z"]
        names = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        found = (path / name for name in names.split("\0") if Path(name).suffix in CHECKS)
        yield from (file for file in found if file.is_file())  # a deleted file stays tracked until the commit


def check_text(suffix: str, text: str) -> list[Finding]:
    """Return the findings of a file with this suffix, in the order of their lines."""
    return sorted(CHECKS[suffix](text), key=lambda finding: finding.line) if suffix in CHECKS else []


# -- Python -----------------------------------------------------------------------------------------------------------


def check_python(text: str) -> Iterator[Finding]:
    """Check the docstrings, whole-line comments and texts of `--help` of a Python module."""
    lines = text.split("\n")
    tree = ast.parse(text)
    for first, last in _docstrings(tree):
        yield from _check_docstring(lines[first - 1 : last], first)
    yield from _check_python_comments(text, lines)
    if _HELP.search(text):
        yield from _check_help(tree)


def _docstrings(node: ast.AST) -> Iterator[tuple[int, int]]:
    """Yield the first and the last line of each docstring; only visit statements, to be fast."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
        opening = node.body[0]
        value = opening.value if isinstance(opening, ast.Expr) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield value.lineno, value.end_lineno or value.lineno
    for field in _BLOCKS:
        inner = getattr(node, field, ())
        if isinstance(inner, list):  # not the body of a lambda or of a conditional expression
            for statement in inner:
                yield from _docstrings(statement)


def _check_docstring(lines: Sequence[str], first: int) -> Iterator[Finding]:
    opening = _QUOTES.sub("", lines[0].strip())
    if found := _FIRST.match(opening):
        yield Finding(first, f"the docstring begins with {found[1]!r}: begin with a verb or a noun")
    margin = len(lines[0]) - len(lines[0].lstrip())
    prose = [opening, *(line[margin:] for line in lines[1:])]
    for number, line in enumerate(lines, first):
        if not _is_literal(prose[number - first]):
            yield from _check_width(number, line)
    prose[-1] = re.sub(r"(\"\"\"|'''|\"|')\s*$", "", prose[-1])
    yield from _check_sentences(prose, first)


def _check_help(tree: ast.AST) -> Iterator[Finding]:
    """Report long sentences in the texts of `--help`. A value in an f-string is one word."""
    for node in ast.walk(tree):
        for keyword in node.keywords if isinstance(node, ast.Call) else ():
            if keyword.arg in _HELP_KEYWORDS:
                parts = keyword.value.values if isinstance(keyword.value, ast.JoinedStr) else [keyword.value]
                words = [str(part.value) if isinstance(part, ast.Constant) else "VALUE" for part in parts]
                for sentence in _SENTENCE_END.split("".join(words)):
                    count = len(sentence.split())
                    if count > MAX_HELP_WORDS:
                        yield Finding(keyword.value.lineno, f"a sentence of {count} words: {MAX_HELP_WORDS} at most")


def _check_sentences(lines: Sequence[str], first: int) -> Iterator[Finding]:
    """Report long sentences. A blank line, a list item and an indented block end a sentence."""
    for paragraph in _paragraphs(lines, first):
        text = "\n".join(line for _, line in paragraph)
        at = 0
        for end in [*(found.end() for found in _SENTENCE_END.finditer(text)), len(text)]:
            count = sum(any(map(str.isalnum, word)) for word in text[at:end].split())
            number = paragraph[text.count("\n", 0, at)][0]
            is_opening = number == first and not at  # of a docstring, which _FIRST has seen
            if not is_opening and (found := _VAGUE.match(text, at)):
                yield Finding(number, f"a sentence begins with {found[1]!r}: begin with a noun")
            if count > MAX_WORDS:
                yield Finding(number, f"a sentence of {count} words: {MAX_WORDS} at most")
            at = end


def _paragraphs(lines: Sequence[str], first: int) -> Iterator[list[tuple[int, str]]]:
    paragraph: list[tuple[int, str]] = []
    for number, line in enumerate(lines, first):
        is_item = _ITEM.match(line.lstrip()) is not None
        if not line.strip() or is_item or _is_literal(line):
            if paragraph:
                yield paragraph
            paragraph = []
        if line.strip() and not _is_literal(line):
            paragraph.append((number, line))
    if paragraph:
        yield paragraph


def _is_literal(line: str) -> bool:
    return line.startswith("    ")


def _check_python_comments(text: str, lines: Sequence[str]) -> Iterator[Finding]:
    wide = {
        number: finding
        for number, line in enumerate(lines, 1)
        if line.lstrip().startswith("#")
        for finding in _check_width(number, line)
    }
    if wide:  # only then, because tokenize is slow; it tells a comment from a line of a string
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        comments = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}
        yield from (finding for number, finding in wide.items() if number in comments)


# -- other languages --------------------------------------------------------------------------------------------------


def check_shell(text: str) -> Iterator[Finding]:
    """Check the whole-line comments of a shell script."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.lstrip().startswith("#") and not line.startswith("#!"):
            yield from _check_width(number, line)


def check_c(text: str) -> Iterator[Finding]:
    """Check the comments of a C file, except those that stand after code on their line."""
    lines = text.split("\n")
    for token in _C_TOKEN.finditer(text):
        if not token[0].startswith(("/*", "//")):
            continue
        first = text.count("\n", 0, token.start())
        is_at_margin = token.start() == 0 or text[token.start() - 1] == "\n"  # above a function or a type
        if is_at_margin and (found := _FIRST.match(token[0].lstrip("/*").lstrip())):
            yield Finding(first + 1, f"the comment begins with {found[1]!r}: begin with a verb or a noun")
        for at in range(first, first + token[0].count("\n") + 1):
            if at > first or not text[text.rfind("\n", 0, token.start()) + 1 : token.start()].strip():
                yield from _check_width(at + 1, lines[at])


def check_markdown(text: str) -> Iterator[Finding]:
    """Check the prose of a Markdown file: not its tables, code blocks and lines with a URL."""
    fence = ""
    is_code = False
    before = ""
    for number, line in enumerate(text.split("\n"), 1):
        opening = re.match(r"\s*(```+|~~~+)", line)
        if fence or opening:
            if opening and (not fence or opening[1].startswith(fence)):
                fence = "" if fence else opening[1]
            continue
        if line.strip():  # a blank line neither begins a block nor ends one
            is_code = _is_literal(line) and (is_code or not before.strip())
        before = line
        if not is_code and not line.lstrip().startswith("|"):
            yield from _check_width(number, line)


def _check_width(number: int, line: str) -> Iterator[Finding]:
    """Report a line that is too wide, unless it is a ruler, has a URL, or cannot be broken."""
    if len(line) > MAX_COLUMNS and not _UNBREAKABLE.search(line) and len(line.split()) > 2:
        yield Finding(number, f"a line of {len(line)} columns: {MAX_COLUMNS} at most for prose")


CHECKS: Mapping[str, Callable[[str], Iterator[Finding]]] = {
    ".py": check_python,
    ".c": check_c,
    ".h": check_c,
    ".sh": check_shell,
    ".md": check_markdown,
}


if __name__ == "__main__":
    main()
