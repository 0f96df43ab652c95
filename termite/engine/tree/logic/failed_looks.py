"""Remember the places at which a look has failed, until the next drain checks them again."""

from collections.abc import Mapping

from termite.engine.errors import Retryable
from termite.engine.tree.logic.attrs import Events, Touch, worst_touch


class FailedLooks:
    """The places with unknown content: `events` names them, `unlisted` are directories."""

    def __init__(self) -> None:
        self.events = Events()
        self.unlisted: set[bytes] = set()
        self._last: Retryable | None = None

    def note_names(self, directory: bytes, touched: Mapping[bytes, Touch], error: Retryable | None) -> None:
        """Remember that some names of a directory could not be looked at.

        `error` is None if the directory refuses to be opened, as it does to local commands: no
        drain fails because of that.
        """
        names = self.events.names.setdefault(directory, {})
        for name, touch in touched.items():
            names[name] = worst_touch(names.get(name, Touch.ATTRIBUTES), touch)
        self._last = error or self._last

    def note_directory(self, directory: bytes, error: Retryable) -> None:
        """Remember that a directory could not be listed."""
        self.unlisted.add(directory)
        self._last = error

    def note(self, error: Retryable) -> None:
        """Let the next drain check again what failed, and fail if it fails once more."""
        self._last = error

    @property
    def are_none(self) -> bool:
        """True if every look since the last `take` has succeeded."""
        return self._last is None and not self.unlisted and not self.events

    def take(self) -> tuple[Events, set[bytes]]:
        """Return the places and forget them, because they are checked now."""
        taken = self.events, self.unlisted
        self.events, self.unlisted, self._last = Events(), set(), None
        return taken

    def raise_last(self) -> None:
        """Raise the last failure since `take`, if there is one."""
        if self._last is not None:
            raise Retryable(self._last.reason, self._last.detail)

    def kept_if_broken_off(self) -> "_Kept":
        """Let the next drain check everything if the block fails by a bug or a lack of memory."""
        return _Kept(self)


class _Kept:
    """The block of `kept_if_broken_off`."""

    __slots__ = ("_looks", "_unlisted")

    def __init__(self, looks: FailedLooks) -> None:
        self._looks = looks
        self._unlisted = set(looks.unlisted) if looks.unlisted else ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._looks.unlisted.update(self._unlisted)
            self._looks.events.overflow = True
