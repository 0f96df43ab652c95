"""Mask credentials in the text of a command before it is shown, logged or recorded.

A text is for people and for records only. The command itself is never changed. The mask hides
what looks like a credential, and each value of a variable that must not leave this machine. A mask
that hides too much is better than one that hides too little.
"""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

MASK = "***"
SHORTEST_VALUE = 8  # a shorter value of a hidden variable, such as "1" or a user's name, stands in many texts

# Every repetition is bounded, possessive or stops where the next search begins, so that a search
# takes linear time.
_VALUE = r"(?:'[^']*+'?|\"(?:[^\"\\]|\\.)*+\"?|[^\s'\";&|<>()\\]|\\.)++"
# A whole word `pass` or `pwd` in a name: `--passes` is none, and PWD alone is a directory.
_SECRET_NAME = re.compile(
    r"passw(?:or)?d|passphrase|(?<![a-z])pass(?![a-z])|[_-]pwd(?![a-z])|secret|token|credential"
    r"|(?:api|access|private|sign|signing|deploy|encryption|license)[_-]?key|(?-i:[A-Z0-9]_KEY\Z|[a-z0-9]Key\Z)"
    r"|sharedaccesssignature|^sig\Z",
    re.IGNORECASE,
)
# NAME=VALUE and NAME: VALUE, then --name VALUE
_SETTINGS = tuple(
    re.compile(rf"(?<![\w-])(?P<name>{name})(?P<sign>{sign}){_VALUE}", re.DOTALL)
    for name, sign in ((r"[\w-]{1,100}+", r"\s?[=:]\s?"), (r"--?[\w-]{1,100}+", r"\s{1,8}(?!-)"))
)
_NAME = re.compile(r"[\w-]{1,100}")
_SIGNS = re.compile(r"[\s'\";&|<>()\\]")  # at which a value ends, or which begin a quote
# A text without any of these, in lower case, has no name that `_SECRET_NAME` finds.
_SECRET_PARTS = ("pass", "_pwd", "-pwd", "secret", "token", "credential", "key", "sig")
_GITHUB_PARTS = ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_")
# Each pattern has what stays visible in its groups `before` and `after`. The texts before it are
# in lower case: without one of them, the pattern finds nothing. To look for a text takes a
# hundredth of the time of a search, and most commands have none of them.
_CREDENTIALS = tuple(
    (parts, re.compile(pattern, re.ASCII))
    for parts, pattern in (
        # The whole name may be a token: https://TOKEN@host, https://TOKEN:x-oauth-basic@host
        (("http://", "https://"), r"(?P<before>\b(?i:https?)://)[^\s/@'\"]{1,1000}(?P<after>@)"),
        (("://",), r"(?P<before>\b[a-z][a-z0-9+.-]{1,30}://[^\s/:@'\"]{0,256}:)[^\s/@'\"]{1,1000}(?P<after>@)"),
        (
            ("bearer", "basic", "digest", "negotiate"),
            r"(?P<before>\b(?i:Bearer|Basic|Digest|Negotiate)\s{1,8})[\w.~+/=-]{6,}(?P<after>)",
        ),
        (
            ("authorization",),  # with any scheme, such as `token`
            r"(?P<before>\b(?i:Authorization)\s?[:=]\s?(?i:(?:Token|Bearer|Basic|Digest|Negotiate)\s{1,8})?)"
            r"[^\s'\"][^'\"\n]{0,2000}(?P<after>)",
        ),
        (
            ("curl",),  # -u USER:PASSWORD, also behind other letters
            r"(?P<before>(?<![^\s'\"])(?:-[a-zA-Z]{0,10}[uU]\s{0,8}|--(?:proxy-)?user(?:=|\s{1,8}))"
            r"['\"]?[^\s:'\"]{1,256}:)[^\s'\"]{1,1000}(?P<after>)",
        ),
        (
            ("sshpass", "mysql", " login "),  # -p PASSWORD or -pPASSWORD; -pthread, -pipe and -pg are a compiler's
            r"(?P<before>\b(?:sshpass|mysql(?:dump|admin)?|login)\s[^\n;&|]{0,200}?(?<=\s)-p)(?!thread\b|ipe\b|g\b)"
            r"(?:\s{0,8}'[^']{1,1000}'|\s{0,8}[^\s'][^\s]{0,1000})(?P<after>)",
        ),
        (("private key-----",), r"(?P<before>-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----)[^-]*(?P<after>)"),
        (
            # GitHub, GitLab, Slack, AWS, Google, OpenAI and others, PyPI, npm; then JSON web tokens
            (*_GITHUB_PARTS, "glpat-", "xox", "akia", "asia", "aiza", "sk-", "pypi-", "npm_"),
            r"(?P<before>(?<![\w-])(?:gh[pousr]_|github_pat_|glpat-|xox[a-z]-|AKIA|ASIA|AIza|sk-|pypi-|npm_))"
            r"[\w-]{12,}(?P<after>)",
        ),
        (("eyj",), r"(?P<before>(?<![\w-])eyJ)[\w-]{8,}\.[\w.-]+(?P<after>)"),
    )
)


def mask_command(text: str, variables: Mapping[str, str], patterns: tuple[str, ...], argv: Sequence[str] = ()) -> str:
    """Return the text with `***` in place of each credential.

    `variables` are the environment of the command. The values of those whose names match one of the
    shell patterns `patterns` are masked, too. `argv` are the words of the command, if they are
    known.
    """
    return mask_text(text, (*hidden_words(text, argv), *hidden_values(variables, patterns)))


def hidden_words(text: str, argv: Sequence[str]) -> list[str]:
    """Return the credentials among the words whose ends a text does not show, the longest first.

    Such a word has a space or a sign of the shell, and the text is the words joined by spaces. Any
    other text is one of the shell, whose quotes show the ends.
    """
    if not _has_any(text.lower(), _SECRET_PARTS) or text != " ".join(argv):
        return []
    found = []
    for before, word in itertools.pairwise(argv):
        name, sign, value = word.partition("=")
        if not sign or not _NAME.fullmatch(name):
            name, value = before, word
        if _SIGNS.search(value) and _NAME.fullmatch(name) and _SECRET_NAME.search(name):
            found.append(value)
    return sorted(found, key=len, reverse=True)


def mask_text(text: str, hidden: Iterable[str]) -> str:
    """Return the text with `***` in place of each credential, and of each of the `hidden` values.

    Long values must come before those that are parts of them.
    """
    for value in hidden:
        text = text.replace(value, MASK)
    lower = text.lower()
    if _has_any(lower, _SECRET_PARTS):
        for pattern in _SETTINGS:
            text = pattern.sub(_mask_if_secret, text)
    for parts, pattern in _CREDENTIALS:
        if _has_any(lower, parts):
            text = pattern.sub(rf"\g<before>{MASK}\g<after>", text)
    return text


def _has_any(text: str, parts: tuple[str, ...]) -> bool:
    for part in parts:  # noqa: SIM110 `any` would take three times as long
        if part in text:
            return True
    return False


def _mask_if_secret(found: re.Match[str]) -> str:
    return f"{found['name']}{found['sign']}{MASK}" if _SECRET_NAME.search(found["name"]) else found[0]


def hidden_values(variables: Mapping[str, str], patterns: tuple[str, ...]) -> list[str]:
    """Return the values of the variables whose names match a pattern, the longest first.

    Values that are too short to be secrets are left out, and paths, which name a secret at most.
    """
    values = {value for name, value in variables.items() if matches(name, patterns)}
    secrets = (value for value in values if len(value) >= SHORTEST_VALUE and not value.startswith("/"))
    return sorted(secrets, key=len, reverse=True)


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Return True if the name of a variable matches one of the shell patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)
