"""Local or remote: what `.termite-localrc` and the plugins say of a command.

The file is a JSON array of objects; lines that begin in column 0 with `#` or `//` are comments. Keys, in any case:

    Regexp (required)   Local  Recurse  SkipRefresh  Debug  Network (false)   Timeout (seconds)   Memory (bytes)

Each Regexp is searched in the whole command string, not anchored; `.` stops at a newline. The first rule that matches
decides; where none does, the command runs remotely, or here if it is short (short.py). Regexps are Python's: what RE2
wrote differently (`\\z`, `[[:alpha:]]`, `\\Q..\\E`, flags in the middle) is refused in words instead of being taken for
something else; `$` also matches before a newline at the very end.
"""

import functools
import json
import re
import warnings
from collections.abc import Iterable

from termite.engine.errors import UserError
from termite.engine.model import Rule, Verdict

FILE_NAME = ".termite-localrc"

# In force where there is no file.
BUILT_IN = (Rule(r"(?s).*termite-make", local=True, recurse=True, skip_refresh=True, source="built-in default"),)

# Every repetition is bounded or stops where the next search may begin, so that searching takes linear time.
_BREAKS = r"\s;&|()`"
_POSITION = (
    r"(?:^|[;&|(\n`]|[{!]\s|\b(?:do|then|else|exec|env|time|nice|command)\s)"
    rf"\s{{0,64}}+(?:\w{{1,64}}+=[^{_BREAKS}]*+\s{{1,64}}+){{0,16}}+"
)
# Between these parts stand the names of a command: with any directory before them, or quoted, and a word that ends.
_COMMAND = (
    rf"{_POSITION}(?:(?:(?:[^{_BREAKS}'\"=\\]|\\.)*/)?(?:",
    r")|'(?:[^']*/)?(?:",
    r")'|\"(?:[^\"]*/)?(?:",
    rf")\")(?=[{_BREAKS}]|$)",
)
_LEADING_ANYTHING = re.compile(r"^((?:\(\?[a-zA-Z]+\))?)(?:\.\*\??(?![+*?{]))+")

_SWITCHES = {
    "local": "local",
    "recurse": "recurse",
    "skiprefresh": "skip_refresh",
    "debug": "debug",
    "network": "network",
}


def decide(text: str, rules: Iterable[Rule]) -> Verdict:
    """The first rule whose regexp is found in `text` decides; none: remote."""
    for rule in rules:
        if rule.words and not any(word in text for word in rule.words):
            continue
        if re.search(_searchable(rule.regexp), text):
            return Verdict(rule.local, rule)
    return Verdict(local=False)


def command_regexp(names: str) -> str:
    """A regexp for a program of these names (an alternation) where a shell would run it; elsewhere it is just a word.

    That is at the start, after an operator or a keyword; then after assignments and words that run what follows them;
    with any directory before it. `make`, `cd x && A=b /usr/bin/make -C y`, `(make)`, but not `echo make`. Where that
    directory has spaces the word is quoted, or they are: `'/a b/make'`, `/a\\ b/make`.
    """
    return names.join(_COMMAND)


def readable(regexp: str) -> str:
    """For a person: with `COMMAND(names)` for what `command_regexp(names)` has written."""
    first, *others = map(re.escape, _COMMAND)
    return re.sub(rf"{first}(.*?)" + r"\1".join(others), r"COMMAND(\1)", regexp)


def parse_rules(text: str, source: str = FILE_NAME) -> tuple[Rule, ...]:
    """The rules of a file's text, or a UserError that names the entry and the reason."""
    try:
        entries = json.loads(_without_comments(text))
    except ValueError as error:
        raise UserError(f"{source}: not JSON: {error}", hint="an array of objects, see README, 'Rules'") from None
    if not isinstance(entries, list):
        raise UserError(f"{source}: must be a JSON array of objects", hint="see README, 'Rules'")
    return tuple(_parse_rule(entry, f"{source}: entry {number}") for number, entry in enumerate(entries, 1))


class RuleBook:
    """The rules in force: the user's, then those of the plugins. A bad file leaves the last good one in force."""

    def __init__(self, defaults: tuple[Rule, ...] = ()) -> None:
        self._defaults = defaults
        self.rules = BUILT_IN + defaults

    def replace(self, text: str | None) -> None:
        """Take a new text of the user's file, None where there is none."""
        self.rules = (BUILT_IN if text is None else parse_rules(text)) + self._defaults

    def decide(self, text: str) -> Verdict:
        """Where the command with this string runs."""
        return decide(text, self.rules)


@functools.cache
def _searchable(regexp: str) -> str:
    # Where only being found counts, `.*` in front changes nothing, but takes quadratic time (4 s for 100 KiB).
    return _LEADING_ANYTHING.sub(r"\1", regexp)


def _without_comments(text: str) -> str:
    # Empty lines in their place, so that the line numbers of JSON errors are those of the file.
    return "\n".join("" if line.startswith(("#", "//")) else line for line in text.split("\n"))


def _parse_rule(entry: object, where: str) -> Rule:
    if not isinstance(entry, dict):
        raise UserError(f"{where}: must be an object", hint='like {"Regexp": "^ar ", "Local": true}')
    fields = {key.lower(): content for key, content in entry.items()}
    regexp = fields.get("regexp")
    if not isinstance(regexp, str):
        raise UserError(f"{where}: needs a Regexp", hint='like {"Regexp": "^ar ", "Local": true}')
    _check_regexp(regexp, where)
    switches = {name: _switch(fields, key, where) for key, name in _SWITCHES.items()}
    return Rule(
        regexp=regexp,
        timeout_s=_number(fields, "timeout", where),
        memory_bytes=int(_number(fields, "memory", where)),
        source=where,
        words=(),
        **switches,
    )


def _check_regexp(regexp: str, where: str) -> None:
    try:
        with warnings.catch_warnings():
            # `[[:alpha:]]` compiles with a warning, and means something else than its writer thinks.
            warnings.simplefilter("error")
            re.compile(regexp)
    except (re.error, RecursionError, OverflowError, Warning) as error:
        hint = "regular expressions are Python's, see README, 'Rules'"
        raise UserError(f"{where}: bad Regexp {regexp!r}: {error}", hint=hint) from None


def _switch(fields: dict[str, object], key: str, where: str) -> bool:
    content = fields.get(key, False)
    if not isinstance(content, bool):
        raise UserError(f"{where}: {key} must be true or false, not {content!r}")
    return content


def _number(fields: dict[str, object], key: str, where: str) -> float:
    content = fields.get(key, 0)
    if isinstance(content, bool) or not isinstance(content, int | float) or not 0 <= content < 1e18:
        raise UserError(f"{where}: {key} must be a number, not {content!r}")
    return content
