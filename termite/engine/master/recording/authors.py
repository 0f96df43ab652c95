"""Remember whose results made the newest changesets of the journal."""

AUTHORS_KEPT = 10_000  # more jobs than end while one runs that may run again


class Authors:
    """The jobs whose results made the newest changesets, by the numbers of these."""

    def __init__(self) -> None:
        self._jobs: dict[int, int] = {}

    def note(self, number: int, job: int) -> None:
        """Note that the results of a job were complete with this changeset."""
        if len(self._jobs) >= AUTHORS_KEPT:
            del self._jobs[next(iter(self._jobs))]
        self._jobs.setdefault(number, job)

    def job_of(self, number: int) -> int:
        """Return the job whose results were complete with this changeset, or 0."""
        return self._jobs.get(number, 0)
