"""Decide by the rules of the user and the plugins whether a command runs locally or remotely.

The file `.termite-localrc` is a JSON array of objects. Lines that begin in column 0 with `#` or
`//` are comments. The keys, in upper or lower case, and their defaults:

Regexp (required)   Local  Recurse  SkipRefresh  Debug  Network  Trusted (false)
Log (true)          Timeout (seconds)   Memory (bytes)
Cache (true)        IgnoreEnv (names of variables)

Any other key is an error, because a misspelt one would turn its rule into another one.

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
from typing import Annotated

import msgspec

from termite.engine.errors import UserError
from termite.engine.model import Rule, Verdict
from termite.engine.nearest_name import wrong_name

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
    rf")\")(?=[{_BREAKS}<>]|$)",
)
_LEADING_ANYTHING = re.compile(r"^((?:\(\?[a-zA-Z]+\))?)(?:\.\*\??(?![+*?{]))+")

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"\A[^=\x00]+\Z")]
_Amount = Annotated[float, msgspec.Meta(ge=0, lt=1e18)]


class RuleEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="pascal"):
    """One object of the file, as its writer has to spell it; only the case of keys is free."""

    regexp: str
    local: bool = False
    recurse: bool = False
    skip_refresh: bool = False
    debug: bool = False
    network: bool = False
    trusted: bool = False
    log: bool = True
    timeout: _Amount = 0.0
    memory: _Amount = 0.0
    cache: bool = True
    ignore_env: tuple[_Name, ...] = ()


KEYS = tuple(field.encode_name for field in msgspec.structs.fields(RuleEntry))
_ANY_CASE = {key.lower(): key for key in KEYS}
_WANTED: dict[object, str] = {  # else a number
    str: "must be a text",
    bool: "must be true or false",
    tuple[_Name, ...]: "must be an array of names of variables",
}


def first_match(text: str, rules: Iterable[Rule]) -> Verdict:
    """Return the verdict of the first rule whose regexp is found in `text`; without one, remote."""
    for rule in rules:
        for word in rule.words:  # a generator would take longer than the search for most words
            if word in text:
                break
        else:
            if rule.words:
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
        entries = json.loads(_without_comments(text), object_pairs_hook=_Object)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{source}: not JSON: {error}", hint="write an array of objects, see docs/use/reference.md, 'Rules'"
        ) from None
    if not isinstance(entries, list):
        raise UserError(f"{source}: must be a JSON array of objects", hint="see docs/use/reference.md, 'Rules'")
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


class _Object:
    """An object of JSON: its keys in order, and perhaps one of them twice."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        self.pairs = pairs

    def __repr__(self) -> str:
        return "{...}"


@functools.cache
def _searchable(regexp: str) -> str:
    # A search only asks whether the regexp is found, so `.*` in front changes nothing. With it, a
    # search takes quadratic time (4 s for 100 KiB).
    return _LEADING_ANYTHING.sub(r"\1", regexp)


def _without_comments(text: str) -> str:
    # Comments become empty lines, so that the line numbers of JSON errors are those of the file.
    return "\n".join("" if line.startswith(("#", "//")) else line for line in text.split("\n"))


def _parse_rule(entry: object, where: str) -> Rule:
    if not isinstance(entry, _Object):
        raise UserError(f"{where}: must be an object", hint='like {"Regexp": "^ar ", "Local": true}')
    found = _convert(entry, where)
    _check_regexp(found.regexp, where)
    return Rule(
        regexp=found.regexp,
        local=found.local,
        recurse=found.recurse,
        skip_refresh=found.skip_refresh,
        debug=found.debug,
        network=found.network,
        trusted=found.trusted,
        log=found.log,
        timeout_s=found.timeout,
        memory_bytes=int(found.memory),
        source=where,
        cache=found.cache,
        ignore_env=found.ignore_env,
        words=(),
    )


def _convert(entry: _Object, where: str) -> RuleEntry:
    """Return the object with its types checked. Raise UserError, which names a wrong key."""
    fields: dict[str, object] = {}
    for key, content in entry.pairs:
        known = _ANY_CASE.get(key.lower(), key)
        if known in fields:
            raise UserError(f"{where}: {known} is given twice")
        fields[known] = content
    try:
        return msgspec.convert(fields, RuleEntry)
    except msgspec.ValidationError as error:
        raise _wrong_entry(fields, where) or UserError(f"{where}: {error}") from None


def _wrong_entry(fields: dict[str, object], where: str) -> UserError | None:
    """Return the error for the first key that is wrong, or None if there is none."""
    for key in fields:
        if key not in KEYS:
            error = wrong_name("key", key, KEYS, "docs/use/reference.md, 'Rules'")
            return UserError(f"{where}: {error.message}", hint=error.hint)
    if "Regexp" not in fields:
        return UserError(f"{where}: needs a Regexp", hint='like {"Regexp": "^ar ", "Local": true}')
    for field in msgspec.structs.fields(RuleEntry):
        try:
            msgspec.convert(fields.get(field.encode_name, field.default), field.type)
        except msgspec.ValidationError:
            wanted = _WANTED.get(field.type, "must be a number")
            return UserError(f"{where}: {field.encode_name} {wanted}, not {fields[field.encode_name]!r}")
    return None


def _check_regexp(regexp: str, where: str) -> None:
    try:
        with warnings.catch_warnings():
            # `[[:alpha:]]` compiles with a warning, and its meaning is not the one its writer
            # expects.
            warnings.simplefilter("error")
            re.compile(regexp)
    except (re.error, RecursionError, OverflowError, Warning) as error:
        hint = "regular expressions are Python's, see docs/use/reference.md, 'Rules'"
        raise UserError(f"{where}: bad Regexp {regexp!r}: {error}", hint=hint) from None
