"""Hold the events that one reader of the live stream has not taken yet, in bounded memory."""

QUEUE_BYTES = 1024 * 1024  # a second of a very busy master


class EventQueue:
    """The packed frames that wait for one reader.

    If they were too many, all of them are dropped. The reader then needs a new snapshot.
    """

    def __init__(self, limit_bytes: int = QUEUE_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._frames: list[bytes] = []
        self._waiting_bytes = 0
        self._missed = 0

    def add(self, frame: bytes) -> None:
        """Add a frame, or count it as missed if the reader is too slow. This never fails."""
        if self._missed:
            self._missed += 1
            return
        self._frames.append(frame)
        self._waiting_bytes += len(frame)
        if self._waiting_bytes > self._limit_bytes:
            self._missed = len(self._frames)
            self._frames.clear()
            self._waiting_bytes = 0

    def take(self) -> tuple[bytes, int]:
        """Take all frames, and return them with the number of missed ones.

        If that number is not 0, there are no frames, and the reader needs a new snapshot.
        """
        frames, missed = b"".join(self._frames), self._missed
        self._frames.clear()
        self._waiting_bytes = self._missed = 0
        return frames, missed

    @property
    def is_empty(self) -> bool:
        """True if there is nothing to say to the reader."""
        return not self._frames and not self._missed
