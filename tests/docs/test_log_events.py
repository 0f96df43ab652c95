"""Every line that a daemon logs is `area-event key=value ...`, with `reason=` as its last key."""

import ast
import re
from collections.abc import Iterator

from tests.docs.product_code import PRODUCT, calls

LEVELS = {"debug", "info", "warning", "error", "exception"}
EVENT = re.compile(r"[a-z]+(-[a-z]+)+")
KEY = re.compile(r"([a-z_]+)=(%s:%d|%[srd]|'[^']*'|[a-z-]+)")


def logged() -> Iterator[tuple[str, str]]:
    """Yield the place and the text of each log call of the product."""
    for path, node in calls():
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="log"), attr=level), args=[ast.Constant(value=str(text)), *_]
            ) if level in LEVELS:
                yield f"{path.relative_to(PRODUCT)}:{node.lineno}", text
            case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr=level)) if level in LEVELS:
                yield f"{path.relative_to(PRODUCT)}:{node.lineno}", "(not a constant text)"


def test_a_log_line_is_an_event_with_keys_and_its_reason_last() -> None:
    assert len(list(logged())) > 100
    for place, text in logged():
        event, _, rest = text.partition(" ")
        assert EVENT.fullmatch(event), place
        keys = KEY.findall(rest)
        assert " ".join(f"{key}={form}" for key, form in keys) == rest, f"{place}: {text}"
        names = [key for key, _ in keys]
        assert "reason" not in names[:-1], f"{place}: {text}"
        assert not {"error", "why", "cause"} & set(names), f"{place}: a cause is called reason"
