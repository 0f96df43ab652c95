"""tools/check_prose.py: which lines it reports, and which it must leave alone."""

import pytest

from check_prose import MAX_COLUMNS, MAX_HELP_WORDS, MAX_WORDS, check_text
from tests.unit.tables import each_row

WIDE = "word " * 19 + "words"  # a hundred columns
WORDS = "Word" + " w" * (MAX_WORDS - 1)  # narrow enough for one line


def found(suffix: str, text: str) -> list[tuple[int, str]]:
    """Return the line of each finding, and the beginning of its message."""
    return [(finding.line, finding.message.split(":")[0]) for finding in check_text(suffix, text)]


def columns(line: int, count: int) -> tuple[int, str]:
    return (line, f"a line of {count} columns")


def test_prose_in_python_ends_at_the_limit_and_code_does_not() -> None:
    assert len(WIDE) == MAX_COLUMNS
    text = f'"""Short.\n\n{WIDE}\n\n{WIDE}.\n"""\n\nx = 1  # {WIDE}\n# {WIDE}\ny = "{WIDE}"\nz = """\n# {WIDE}\n"""\n'
    assert found(".py", text) == [columns(5, 101), columns(9, 102)]


@each_row("word", ["Of", "What", "The same", "Whether", "Until", "As", "How", "Why", "Which"])
def test_a_docstring_begins_with_a_verb_or_a_noun(word: str) -> None:
    text = f'def f():\n    if 1:\n        async def g():\n            """{word} is there."""\n'
    assert found(".py", text) == [(4, f"the docstring begins with {word!r}")]


@pytest.mark.parametrize("words", ["Offer one.", "Assert it.", "Return it. It is one.", "The samest one.", "Untilted."])
def test_only_the_whole_first_word_counts(words: str) -> None:
    assert found(".py", f'class A:\n    """{words}"""\n') == []


def test_a_sentence_of_a_help_text_has_25_words_at_most() -> None:
    long, short = "Word" + " w" * MAX_HELP_WORDS, "Word" + " w" * (MAX_HELP_WORDS - 1)
    text = f'add("-x", help="{short}. {short} {{}}")\nadd("-y", help=f"{short[:-2]} {{y}}")\nz(more="{long}")\n'
    message = f"a sentence of {MAX_HELP_WORDS + 1} words"
    assert found(".py", text) == [(1, message), (3, message)]
    assert found(".py", f'say(text="{long}")\n') == []


def test_a_comment_in_c_above_a_function_begins_with_a_verb_or_a_noun() -> None:
    text = "/* Whether it is. */\nint is(void)\n{\n    /* What is there. */\n}\n/* How it is. */\nint b;\n"
    assert found(".c", text) == [(1, "the comment begins with 'Whether'"), (6, "the comment begins with 'How'")]


def test_a_string_that_is_no_docstring_may_begin_with_anything() -> None:
    assert found(".py", 'x = 1\n"""What is there."""\n"What"\n') == []


def test_a_long_sentence_is_reported_at_its_first_line() -> None:
    text = f'"""Short one.\n\nAnother. {WORDS}\nand so on. See `x.y` and 1.5.\n{WORDS}, e.g. w.\n"""\n'
    assert found(".py", text) == [
        (3, f"a sentence of {MAX_WORDS + 3} words"),
        (5, f"a sentence of {MAX_WORDS + 2} words"),
    ]


@each_row(
    "text",
    [
        f"{WORDS}.\n{WORDS}.",
        f"{WORDS}\n\n{WORDS}",
        f"* {WORDS}\n* {WORDS}\n",
        f"Run:\n\n    {WORDS} {WORDS}\n\n{WORDS}.",
        f"{WORDS}?\n`{WORDS}`!\n({WORDS}.)\n{WORDS}.",
        f"{WORDS} - = * .",
    ],
)
def test_a_paragraph_an_item_and_a_block_are_sentences_of_their_own(text: str) -> None:
    assert found(".py", f'"""{text}\n"""\n') == []


def test_a_comment_in_c_is_prose_and_code_and_strings_are_not() -> None:
    text = (
        f'/* {WIDE}\n * {WIDE} */\nint x; /* {WIDE}\n  {WIDE} */\nchar *s = "/* {WIDE}"; char c = \'"\';\n// {WIDE}\n'
    )
    assert found(".c", text) == [columns(1, 103), columns(2, 106), columns(4, 105), columns(6, 103)]
    assert found(".h", text) == found(".c", text)


def test_a_comment_in_a_shell_script_is_prose() -> None:
    assert found(".sh", f"#!/bin/sh {WIDE}\n  # {WIDE}\necho {WIDE} # {WIDE}\n") == [columns(2, 104)]


def test_tables_code_and_addresses_in_markdown_may_be_wide() -> None:
    wide = WIDE + " more"
    text = f"# {wide}\n\n| {wide} |\n\n    {wide}\n\n    {wide}\n\n```sh\n{wide}\n```\n"
    text += f"see https://x.org {wide}\n* a\n    {wide}\n"
    assert found(".md", text) == [columns(1, 107), columns(14, 109)]


def test_a_line_without_a_place_to_break_it_and_a_ruler_are_left_alone() -> None:
    assert found(".py", f"# {'x' * 120}\n# -- part of the file {'-' * 95}\n") == []


@each_row("word", ["So", "That", "What", "Who", "Of", "How"])
def test_a_later_sentence_has_a_noun_of_its_own(word: str) -> None:
    text = f'"""Short one.\n\nThere is one.\n{word} is there.\n\n{word} is there, and so is {word}.\n"""\n'
    assert found(".py", text) == [(4, f"a sentence begins with {word!r}"), (6, f"a sentence begins with {word!r}")]
    assert found(".py", f'"""Short one.\n\nThere is one. {word}some is there, {word} is there.\n"""\n') == []
