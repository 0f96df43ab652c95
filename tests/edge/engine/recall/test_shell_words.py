"""Lists of commands that are read without a shell have the words that a shell reads."""

import random
import shlex
import subprocess
from pathlib import Path

import pytest

from termite.engine.recall.known.shell_lists import NotSimple, SimpleCommand, parse_list

PIECES = [
    *"ab=-:/%,1é \t\n'\"\\;&|<>$`*?[]{}()~#!",
    "w ",
    " w ",
    " && ",
    "; ",
    "'a b'",
    '"c d"',
    "\\\n",
    "2>&1 ",
    ">f ",
]
PIECES += [">>f ", "<g ", "A=1 ", "\\\\", '\\"', "\\$", "''", '""', "2", "if ", " [ ", "cd "]
TEXTS = 4_000
MOST_PIECES = 8
# A call of `w` writes its words to descriptor 9, with a NUL behind each, and one more at the end.
HEAD = "w() { for x do printf '%s\\0' \"$x\" >&9; done; printf '\\n\\0' >&9; }; exec 2>/dev/null\n"


def simple_texts(rng: random.Random) -> dict[str, tuple[SimpleCommand, ...]]:
    """Return random texts that are lists of calls of `w`, each with what was read in it."""
    found = {}
    for _ in range(TEXTS):
        text = "w " + "".join(rng.choices(PIECES, k=rng.randint(1, MOST_PIECES)))
        try:
            commands = parse_list(text)
        except NotSimple:
            continue
        # A shell may leave out the command behind `||`, and one without the file behind `<`.
        if (
            "||" not in text
            and "<" not in text.replace("<g ", "")
            and all(command.words[:1] == ("w",) for command in commands)
        ):
            found[text] = commands
    return found


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_a_shell_reads_the_same_words(shell: str, tmp_path: Path) -> None:
    texts = simple_texts(random.Random(1))
    (tmp_path / "g").write_text("")
    lines = [f"( eval {shlex.quote(text)} ) >/dev/null; printf '%s\\f\\0' $? >&9" for text in texts]
    script = tmp_path / "script"
    script.write_text(HEAD + "\n".join(lines))
    subprocess.run(["sh", "-c", f"exec {shell} {script} 9>{tmp_path}/words"], cwd=tmp_path, check=True)
    read = (tmp_path / "words").read_text().split("\f\0")[:-1]
    assert len(read) == len(texts)
    expected = ["".join("\0".join([*command.words[1:], "\n\0"]) for command in found) for found in texts.values()]
    # If a text is none of its language, a shell ends with an error, and the job has no result.
    ended_well = [(text, words) for text, words in zip(texts, read, strict=True) if words.endswith("0")]
    assert len(ended_well) > TEXTS / 10
    right = dict(zip(texts, expected, strict=True))
    assert [(text, words) for text, words in ended_well if words != right[text] + "0"] == []
