"""Decide by the rules of the user and the plugins whether a command runs locally or remotely.

The file `.termite-localrc` is a JSON array of objects. Lines that begin in column 0 with `#` or
`//` are comments. The keys, in upper or lower case, and their defaults:

Regexp (required)   Local  Recurse  SkipRefresh  Debug  Network  Trusted (false)
Log (true)          Timeout (seconds)   Memory (bytes)

Each Regexp is searched in the whole command text and is not anchored; `.` stops at a newline. The
first rule that matches decides. If none matches, the command runs remotely, or locally if it is
short (short_commands.py).

Regexps are Python's. A spelling that only RE2 has (`\\z`, `[[:alpha:]]`, `\\Q..\\E`, flags in the
middle) is refused with a message. `$` also matches before a newline at the very end.
"""

import functools
import json
import re
import warnings
from collections.abc import Iterable

from termite.engine.errors import UserError
from termite.engine.model import Rule, Verdict

FILE_NAME = ".termite-localrc"

# In force if there is no file.
BUILT_IN = (Rule(r"(?s).*termite-make", local=True, recurse=True, skip_refresh=True, source="built-in default"),)

# Every repetition is bounded, or stops at a place where the next search may begin, so that a
# search takes linear time.
_BREAKS = r"\s;&|()`"
_POSITION = (
    r"(?:^|[;&|(\n`]|[{!]\s|\b(?:do|then|else|exec|env|time|nice|command)\s)"
    rf"\s{{0,64}}+(?:\w{{1,64}}+=[^{_BREAKS}]*+\s{{1,64}}+){{0,16}}+"
)
# The names of a command stand between these parts: with any directory before them, or quoted. The
# last part demands that the word ends.
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
    "trusted": "trusted",
}


def first_match(text: str, rules: Iterable[Rule]) -> Verdict:
    """Return the verdict of the first rule whose regexp is found in `text`; without one, remote."""
    for rule in rules:
        if rule.words and not any(word in text for word in rule.words):
            continue
        if re.search(_searchable(rule.regexp), text):
            return Verdict(rule.local, rule)
    return Verdict(local=False)


def command_regexp(names: str) -> str:
    """Return a regexp that finds a program of these names if a shell would run it.

    `names` is an alternation, such as `make|gmake`. The program stands at the start, or after an
    operator or a keyword. Assignments and words like `env` may come before it, and any directory.
    The regexp matches `make`, `cd x && A=b /usr/bin/make -C y` and `(make)`, but not `echo make`.
    If the directory has spaces, the word or the spaces are quoted: `'/a b/make'`, `/a\\ b/make`.
    """
    return names.join(_COMMAND)


def readable_regexp(regexp: str) -> str:
    """Return the regexp for people, where `COMMAND(names)` stands for `command_regexp(names)`."""
    first, *others = map(re.escape, _COMMAND)
    return re.sub(rf"{first}(.*?)" + r"\1".join(others), r"COMMAND(\1)", regexp)


def parse_rules(text: str, source: str = FILE_NAME) -> tuple[Rule, ...]:
    """Return the rules in a file's text.

    Raise UserError, which names the entry and the reason, if the text is not a valid file. `source`
    is the file's name in such messages and in the rules.
    """
    try:
        entries = json.loads(_without_comments(text))
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{source}: not JSON: {error}", hint="write an array of objects, see docs/reference.md, 'Rules'"
        ) from None
    if not isinstance(entries, list):
        raise UserError(f"{source}: must be a JSON array of objects", hint="see docs/reference.md, 'Rules'")
    return tuple(_parse_rule(entry, f"{source}: entry {number}") for number, entry in enumerate(entries, 1))


class RuleBook:
    """The rules in force: the user's, then those of the plugins."""

    def __init__(self, defaults: tuple[Rule, ...] = ()) -> None:
        self._defaults = defaults
        self.rules = BUILT_IN + defaults

    def replace(self, text: str | None) -> None:
        """Put the rules of the user's file in force; `text` is None if there is no file.

        Raise UserError if the text is bad. The rules that were in force before then stay in force.
        """
        self.rules = (BUILT_IN if text is None else parse_rules(text)) + self._defaults

    def decide(self, text: str) -> Verdict:
        """Return where the command with this text runs."""
        return first_match(text, self.rules)


@functools.cache
def _searchable(regexp: str) -> str:
    # A search only asks whether the regexp is found, so `.*` in front changes nothing. With it, a
    # search takes quadratic time (4 s for 100 KiB).
    return _LEADING_ANYTHING.sub(r"\1", regexp)


def _without_comments(text: str) -> str:
    # Comments become empty lines, so that the line numbers of JSON errors are those of the file.
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
        log=_switch(fields, "log", where, default=True),
        timeout_s=_number(fields, "timeout", where),
        memory_bytes=int(_number(fields, "memory", where)),
        source=where,
        words=(),
        **switches,
    )


def _check_regexp(regexp: str, where: str) -> None:
    try:
        with warnings.catch_warnings():
            # `[[:alpha:]]` compiles with a warning, and its meaning is not the one its writer
            # expects.
            warnings.simplefilter("error")
            re.compile(regexp)
    except (re.error, RecursionError, OverflowError, Warning) as error:
        hint = "regular expressions are Python's, see docs/reference.md, 'Rules'"
        raise UserError(f"{where}: bad Regexp {regexp!r}: {error}", hint=hint) from None


def _switch(fields: dict[str, object], key: str, where: str, *, default: bool = False) -> bool:
    content = fields.get(key, default)
    if not isinstance(content, bool):
        raise UserError(f"{where}: {key} must be true or false, not {content!r}")
    return content


def _number(fields: dict[str, object], key: str, where: str) -> float:
    content = fields.get(key, 0)
    if isinstance(content, bool) or not isinstance(content, int | float) or not 0 <= content < 1e18:
        raise UserError(f"{where}: {key} must be a number, not {content!r}")
    return content
