"""The pictures in the documents are those of the present views."""

import re

import pytest

from tests.browser import shown_views
from tests.browser.shown_views import CHECKOUT, DIGESTS, IMAGES, digests_text

RENEW = "a view has changed: look at it, and renew its picture with `make screenshots`"


def test_the_pictures_show_the_present_views() -> None:
    assert DIGESTS.read_text() == digests_text(), RENEW


def test_each_picture_is_one_of_a_view_and_stands_in_a_document() -> None:
    shown = set(re.findall(r"\(docs/images/([^)]+)\)", (CHECKOUT / "README.md").read_text()))
    assert shown == {path.name for path in IMAGES.glob("*.png")} == set(shown_views.shown_views())


@pytest.mark.parametrize(
    ("picture", "words"), [("top.png", "[running]"), ("build.png", "Slowest jobs"), ("farm.png", "Users")]
)
def test_a_changed_word_of_a_view_is_found(monkeypatch: pytest.MonkeyPatch, picture: str, words: str) -> None:
    views = shown_views.shown_views()
    assert words in views[picture]
    before = digests_text()
    monkeypatch.setattr(shown_views, "shown_views", lambda: {**views, picture: views[picture].replace(words, "x")})
    changed = [line.split()[0] for line in set(digests_text().splitlines()) - set(before.splitlines())]
    assert changed == [picture]
