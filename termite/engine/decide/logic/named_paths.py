"""Find out whether the text of a command names a path, or one below it."""

import re

MAX_LEAD = 100  # characters before a path that are examined

_IN_NAME = re.compile(r"[\w.+~@%-]")  # behind a path, it belongs to the last name
_LEAD = re.compile(r"[\w.+~%/-]*\Z")


def names_path(text: str, path: str) -> bool:
    """Return whether a text names an absolute path, or one below it.

    `/x/proj-deps` and `/y/x/proj` do not name `/x/proj`, but `-I/x/proj` does.
    """
    at = text.find(path)
    while at >= 0:
        if not _IN_NAME.match(text, at + len(path)) and _may_begin(text[max(at - MAX_LEAD, 0) : at]):
            return True
        at = text.find(path, at + 1)
    return False


def _may_begin(before: str) -> bool:
    """Return whether an absolute path may begin behind this text."""
    lead = _LEAD.search(before)
    assert lead is not None, "the pattern matches the empty text"
    return not lead[0] or (lead[0].startswith("-") and "/" not in lead[0])
