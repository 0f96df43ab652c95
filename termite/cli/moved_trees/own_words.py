"""Take the flag --at from the words of a build tool. Every build waits for this module."""

from collections.abc import Sequence

from termite.engine.errors import UserError

FLAG = "--at"


def take_at(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the value of the flag ("": there is none), and the words without it.

    Words after `--` belong to the tool. Raise UserError if the flag has no value, or two.
    """
    at, rest = "", list[str]()
    waiting = iter(words)
    for word in waiting:
        name, equals, text = word.partition("=")
        if name != FLAG:
            rest.append(word)
            if word == "--":
                rest += waiting
            continue
        value = text if equals else next(waiting, "")
        if not value or value.startswith("-"):
            raise UserError(f"{FLAG} has no value: write {FLAG} PATH", hint="such as --at /build/project")
        if at not in ("", value):
            raise UserError(f"{FLAG} names two paths: {at} and {value}")
        at = value
    return at, rest
