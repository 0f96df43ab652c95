"""Say after a build which programs of the user its commands could not have on workers."""

from termite.cli.amounts import counted
from termite.engine.errors import Reason
from termite.engine.status.control_requests import ControlAnswer

UNSEEN = Reason.UNSEEN_PROGRAM.value
NAMED_PROGRAMS = 3  # as many as a person reads in one line


def unseen_lines(end: ControlAnswer) -> list[str]:
    """Return a line about the commands that ran here because jobs may not see a program.

    Take them out of the other counts of `end`: they did what they do in a plain build.
    """
    unseen: dict[str, int] = end.get("unseen", {})
    count = 0
    for kind in ("fallbacks", "tied"):
        count += end.get(kind, {}).pop(UNSEEN, 0)
    if not unseen or not count or end.get("failed"):
        return []
    programs = ", ".join(list(unseen)[:NAMED_PROGRAMS])
    more = f" and {len(unseen) - NAMED_PROGRAMS} more" if len(unseen) > NAMED_PROGRAMS else ""
    end["unseen_commands"] = count
    ran = f"{counted(count, 'command')} ran on this machine, because jobs may not see {programs}{more}"
    return [f"{ran} (termite-master -export DIR)"]
