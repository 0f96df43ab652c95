"""Read pages as a browser of a place would, and what their tables say."""

import html
import inspect
import re
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.e2e.cluster import Daemon, Tree
from tests.e2e.places import COMMANDS, Place


def answer_of(url: str, token: str, form: str) -> str:
    """Return the status of a page as a line, and then its text."""
    request = urllib.request.Request(url, form.encode() or None)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        answer = urllib.request.urlopen(request, timeout=20)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return f"{answer.status}\n{answer.read().decode()}"


ASK = f"""
import sys, urllib.error, urllib.request
{inspect.getsource(answer_of)}
print(answer_of(*sys.argv[1:]), end="")
"""


@dataclass(frozen=True, slots=True)
class PageReader:
    """A reader of the pages at `url`, who is in a place and has their token."""

    where: Place
    url: str
    token: str

    def ask(self, path: str, form: str = "", *, token: str | None = None) -> tuple[int, str]:
        """Return the status and the text of a page. A `form` is sent by POST."""
        words = (self.url + path, self.token if token is None else token, form)
        if any(word.startswith("--net=") for word in self.where.enter):
            done = self.where.run([str(COMMANDS / "python"), "-c", ASK, *words], "/")
            assert done.code == 0, done
            answer = done.stdout.decode()
        else:
            answer = answer_of(*words)
        status, _, text = answer.partition("\n")
        return int(status), text

    def page(self, path: str) -> str:
        status, text = self.ask(path)
        assert status == 200, (status, text)
        return text

    def press(self, path: str, button: str) -> None:
        """Press the button of a page, whose form must lead to `button`."""
        page = self.page(path)
        found = re.search(rf'action="{re.escape(button)}"><input type="hidden" name="token" value="(\w+)"', page)
        assert found, page
        status, text = self.ask(button, f"token={found[1]}")
        assert status == 200, (status, text)  # after the redirect


def pages_of(coordinator: Daemon) -> PageReader:
    return pages_at(coordinator.where, coordinator.text())


def pages_at(where: Place, said: str) -> PageReader:
    """Return a reader of the pages whose address a program has printed."""
    found = re.search(r"pages at (http://\S+)/\?token=(\S+)", said)
    assert found, said
    return PageReader(where, found[1], found[2])


@contextmanager
def pages_of_tree(tree: Tree) -> Iterator[PageReader]:
    """Serve the pages of a tree, and yield their reader."""
    where = tree.where
    served = where.start([where.termite("termite-ctl"), "web", "-http", "0"], tree.path)
    try:
        assert served.stdout is not None
        yield pages_at(where, served.stdout.readline().decode())
    finally:
        served.send_signal(signal.SIGINT)
        served.communicate(timeout=20)


def marks_of_page(page: str) -> dict[str, tuple[str, str]]:
    """Return the state of each worker that a page lists: its mark, and its words."""
    row = r'<a href="/worker/[^"]*">([^<]*)</a></td>(?:(?!</tr>).)*?<span class="state (\w+)">([^<]*)<'
    return {name: (mark, html.unescape(words)) for name, mark, words in re.findall(row, page)}
