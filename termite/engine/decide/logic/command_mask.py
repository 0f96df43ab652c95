"""Mask credentials in the text of a command before it is shown, logged or recorded.

A text is for people and for records only. What runs is never changed. The mask hides what looks
like a credential, and each value of a variable that must not leave this machine. It hides too much
rather than too little.
"""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase

MASK = "***"
SHORTEST_VALUE = 8  # a shorter value of a hidden variable, such as "1" or a user's name, stands in many texts

# Every repetition is bounded, possessive or stops where the next search begins, so that a search
# takes linear time.
_VALUE = r"(?:'[^']*+'?|\"(?:[^\"\\]|\\.)*+\"?|[^\s'\";&|<>()\\]|\\.)++"
_SECRET_NAME = re.compile(
    r"passw(?:or)?d|passphrase|secret|token|credential|(?:api|access|private)[_-]?key", re.IGNORECASE
)
# NAME=VALUE and NAME: VALUE, then --name VALUE
_SETTINGS = tuple(
    re.compile(rf"(?<![\w-])(?P<name>{name})(?P<sign>{sign}){_VALUE}", re.DOTALL)
    for name, sign in ((r"[\w-]{1,100}+", r"\s?[=:]\s?"), (r"--?[\w-]{1,100}+", r"\s{1,8}(?!-)"))
)
# Each pattern has what stays visible in its groups `before` and `after`.
_CREDENTIALS = tuple(
    re.compile(pattern, re.ASCII)
    for pattern in (
        r"(?P<before>\b[a-z][a-z0-9+.-]{1,30}://[^\s/:@'\"]{0,256}:)[^\s/@'\"]{1,1000}(?P<after>@)",
        r"(?P<before>\b(?i:Bearer|Basic|Digest|Negotiate)\s{1,8})[\w.~+/=-]{6,}(?P<after>)",
        r"(?P<before>-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----)[^-]*(?P<after>)",
        # GitHub, GitLab, Slack, AWS, Google, OpenAI and others, PyPI, npm; then JSON web tokens
        r"(?P<before>(?<![\w-])(?:gh[pousr]_|github_pat_|glpat-|xox[a-z]-|AKIA|ASIA|AIza|sk-|pypi-|npm_))"
        r"[\w-]{12,}(?P<after>)",
        r"(?P<before>(?<![\w-])eyJ)[\w-]{8,}\.[\w.-]+(?P<after>)",
    )
)


def mask_command(text: str, variables: Mapping[str, str], patterns: tuple[str, ...]) -> str:
    """Return the text with `***` in place of each credential.

    `variables` are the environment of the command. The values of those whose names match one of the
    shell patterns `patterns` are masked, too.
    """
    for value in hidden_values(variables, patterns):
        text = text.replace(value, MASK)
    for pattern in _SETTINGS:
        text = pattern.sub(_mask_if_secret, text)
    for pattern in _CREDENTIALS:
        text = pattern.sub(rf"\g<before>{MASK}\g<after>", text)
    return text


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
