"""Suggest a rule for `.termite-localrc` that runs certain commands on the master's machine.

The rule ends the vain runs of commands that write outside the tree. It must find each of them, and
should find few others. Therefore it never consists of the words of an interpreter alone: `sh -c` or
`python3 -m` would take a whole build to the master's machine.
"""

import json
import re
from collections.abc import Collection, Iterable

from termite.engine.decide.logic.command_mask import mask_command
from termite.engine.decide.logic.rules import parse_rules

MAX_SHOWN = 5  # alternatives; a longer rule is not one that a person reads
MAX_RULE = 500  # characters
MAX_WORDS = 3  # of a common beginning

# Words that say little about the command whose first one they are.
_INTERPRETERS = re.compile(
    r"(?:[a-z]{0,4}sh|busybox|env|python[\d.]*|perl|ruby|node|java|exec|time|nice|command"
    r"|cd|set|if|for|echo|printf|test|\[|:|\w+=.*)"
)
_SPACES = re.compile(r"\s+")
_SPECIAL = re.compile(r"[.^$*+?{}\[\]\\|()]")
# The beginning of a word that opens a file: paths in -D and -rpath are only texts.
_WORD = r"(?:^|\s)(?!\W?-(?:D|Wl,-rpath))\S*?"


def suggest_rule(texts: Collection[str], names: Iterable[str]) -> str:
    """Return a rule, as one line of JSON, that makes all commands with these texts local.

    `names` are the paths of the place that the commands write. Return "" if no short rule is found,
    or if a credential would stand in it.
    """
    has_credential = any(mask_command(text, {}, ()) != text for text in texts)
    for regexp in (_naming(texts, names), "" if has_credential else _beginning(texts)):
        if regexp and all(re.search(regexp, text) for text in texts):
            line = json.dumps({"Regexp": regexp, "Local": True})
            parse_rules(f"[{line}]")
            return line if len(line) <= MAX_RULE else ""
    return ""


def _naming(texts: Collection[str], names: Iterable[str]) -> str:
    """Return a regexp for the names of the place, if each command names it; else ""."""
    used = [name for name in names if any(name in text for text in texts)][:MAX_SHOWN]
    if not used or not all(any(name in text for name in used) for text in texts):
        return ""
    found = [name if name.startswith(("/", "..")) else rf"(?<![\w./-])(?:\./)?{name}" for name in map(_escape, used)]
    return f"{_WORD}{_any_of(found)}(?![\\w.-])"


def _beginning(texts: Iterable[str]) -> str:
    """Return a regexp for the first words of the commands, or "" if that would be too much."""
    by_program: dict[str, list[list[str]]] = {}
    for text in texts:
        words = _SPACES.split(text.strip())
        by_program.setdefault(words[0], []).append(words)
    beginnings = []
    for program, group in by_program.items():
        common = _common_words(group)
        is_vague = len(common) < MAX_WORDS or "-c" in common
        if _INTERPRETERS.fullmatch(program.rpartition("/")[2]) and len(group) > 1 and is_vague:
            beginnings += [" ".join(words) for words in group]
        else:
            beginnings.append(" ".join(common[:MAX_WORDS] if len(group) > 1 else group[0]))
    beginnings = list(dict.fromkeys(beginnings))
    if len(beginnings) > MAX_SHOWN:
        return ""
    found = _any_of([_escape(words).replace(" ", r"\s+") for words in beginnings])
    return rf"^\s*{found}(?=\s|$)"


def _common_words(group: list[list[str]]) -> list[str]:
    common = group[0]
    for words in group[1:]:
        same = 0
        while same < min(len(common), len(words)) and common[same] == words[same]:
            same += 1
        common = common[:same]
    return common


def _escape(text: str) -> str:
    """Return a regexp for the text that is easier to read than that of `re.escape`."""
    return _SPECIAL.sub(r"\\\g<0>", text)


def _any_of(regexps: Collection[str]) -> str:
    return f"(?:{'|'.join(regexps)})" if len(regexps) > 1 else next(iter(regexps))
