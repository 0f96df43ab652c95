"""Find the name that somebody meant who has misspelt it: a command, flag, key, variable or value.

All programs use these functions, so that every wrong name gets the same one line, which says what
to write.
"""

from collections.abc import Iterable

from termite.engine.errors import UserError

SHORTEST_BEGINNING = 2  # letters; one begins too many names
LONGEST_NAME = 64  # a longer word is no misspelt name, and comparing it would take long


def nearest_name(word: str, names: Iterable[str]) -> str:
    """Return the one of `names` that `word` most likely stands for, or "" if none is near.

    A name is near if every third letter of the word, or fewer, must be changed; one letter of a
    short word may be. Upper and lower case, `-` and `_` count as equal. Among names that are
    equally near, the first wins. The beginning of a name is nearer than any other one, and of
    several names that begin so the shortest is meant.
    """
    if len(word) > LONGEST_NAME:
        return ""
    plain = _plain(word)
    names = tuple(names)
    if len(plain) >= SHORTEST_BEGINNING and (longer := [name for name in names if _plain(name).startswith(plain)]):
        return min(longer, key=len)
    limit = max(1, len(plain) // 3)
    distances = [(_distance(plain, _plain(name)), name) for name in names]
    distance, name = min(distances, key=lambda pair: pair[0], default=(limit + 1, ""))
    return name if distance <= limit and distance < len(plain) else ""


def wrong_name(kind: str, word: str, names: Iterable[str], elsewhere: str = "") -> UserError:
    """Return the error for a `word` that is none of `names`. It says what to write if it can.

    `kind` is the noun for the names, such as "flag". `elsewhere` says where all names are listed;
    the hint names it if no name is near. "" means that there is no such place.
    """
    near = nearest_name(word, names)
    if near:
        return UserError(f"there is no {kind} {word}: write {near}")
    return UserError(f"there is no {kind} {word}", hint=f"see {elsewhere}" if elsewhere else "")


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").lstrip("-")


def _distance(one: str, other: str) -> int:
    """Return how many letters must be added, removed, replaced, or swapped with their neighbour.

    This is the optimal string alignment distance.
    """
    above: list[int] = []
    row = list(range(len(other) + 1))
    for at, letter in enumerate(one, 1):
        above, before, row = row, above, [at]
        for to, wanted in enumerate(other, 1):
            steps = [above[to] + 1, row[to - 1] + 1, above[to - 1] + (letter != wanted)]
            if at > 1 and to > 1 and letter == other[to - 2] and one[at - 2] == wanted:
                steps.append(before[to - 2] + 1)
            row.append(min(steps))
    return row[-1]
