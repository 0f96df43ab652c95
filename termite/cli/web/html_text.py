"""Write HTML of which no text of a user can become markup.

`Html` is text that is HTML already. Everything else is escaped where it is put in.
"""

import html
from collections.abc import Iterable, Sequence
from urllib.parse import quote

from termite.engine.wire.protocol.foreign_text import LONGEST_LINE, printable


class Html(str):
    """HTML, as it is sent."""

    __slots__ = ()


def escaped(content: object) -> Html:
    """Return content as HTML that shows it, without characters that are not printable."""
    if isinstance(content, Html):
        return content
    return Html(html.escape(printable(str(content), LONGEST_LINE)))


def tag(name: str, *contents: object, **attributes: str) -> Html:
    """Return an element. `class_` is the attribute class; other names get dashes."""
    words = "".join(f' {key.rstrip("_").replace("_", "-")}="{html.escape(text)}"' for key, text in attributes.items())
    return Html(f"<{name}{words}>{''.join(map(escaped, contents))}</{name}>")


def link(path: Sequence[object], text: object) -> Html:
    """Return a link to a page of this site, whose address has these parts."""
    return tag("a", text, href=address_of(path))


def address_of(path: Sequence[object]) -> str:
    """Return the address of a page of this site, from its parts."""
    return "/" + "/".join(quote(str(part), safe="") for part in path)


def table(head: Sequence[str], rows: Iterable[Sequence[object]], numbers: Sequence[int] = ()) -> Html:
    """Return a table that may be wider than the screen. The columns `numbers` are aligned right."""

    def cell(name: str, at: int, content: object) -> Html:
        return tag(name, content, class_="number") if at in numbers else tag(name, content)

    top = tag("thead", tag("tr", *(cell("th", at, name) for at, name in enumerate(head))))
    body = tag("tbody", *(tag("tr", *(cell("td", at, one) for at, one in enumerate(row))) for row in rows))
    return tag("div", tag("table", top, body), class_="wide")


def state_mark(standing: str, words: str) -> Html:
    """Return the state of a worker in words, with the mark that its `standing` has on pages."""
    return tag("span", words, class_=f"state {standing}")


def rows_of(pairs: Iterable[tuple[str, object]]) -> Html:
    """Return a table of names and what they are."""
    rows = (tag("tr", tag("th", name), tag("td", content)) for name, content in pairs)
    return tag("div", tag("table", tag("tbody", *rows), class_="pairs"), class_="wide")


def page(title: str, *contents: object) -> Html:
    """Return a whole page."""
    return Html(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{tag('title', f'{title} - termite')}"
        '<link rel="icon" href="data:,"><link rel="stylesheet" href="/static/style.css">'
        '<script src="/static/timeline.js" defer></script></head><body>'
        f"{tag('header', link([], 'termite'), tag('span', title))}"
        f"{tag('main', *contents)}</body></html>"
    )


def message_page(title: str, text: str) -> Html:
    """Return a page that says one thing."""
    return page(title, tag("p", text))


def button(text: str, path: Sequence[object], token: str) -> Html:
    """Return a form with one button, which sends the token to a page of this site."""
    hidden = Html(f'<input type="hidden" name="token" value="{html.escape(token)}">')
    return tag("form", hidden, tag("button", text), method="post", action=address_of(path))
