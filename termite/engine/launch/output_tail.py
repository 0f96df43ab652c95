"""Keep the end of a job's output while it passes, for the record of the job."""

TAIL_BYTES = 4096  # more than a record shows, so that a credential at its edge is found and masked


class OutputTail:
    """The last TAIL_BYTES of a job's stdout and stderr in their order, and how many there were."""

    __slots__ = ("content", "size")

    def __init__(self) -> None:
        self.content = b""
        self.size = 0

    def add(self, content: bytes) -> None:
        """Add a piece of output."""
        self.size += len(content)
        self.content = (self.content + content if len(content) < TAIL_BYTES else content)[-TAIL_BYTES:]

    def clear(self) -> None:
        """Forget everything, because the command runs again."""
        self.content = b""
        self.size = 0
