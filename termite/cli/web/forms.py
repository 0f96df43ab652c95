"""Take forms of our own pages, and show errors as pages."""

from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from termite.cli.web.access import is_same
from termite.cli.web.html_text import message_page

LONGEST_FORM = 4096


async def check_form(request: Request, token: str) -> None:
    """Raise HTTPException if a form has not the token, and so is not from our pages."""
    form = parse_qs((await _short_body(request)).decode("latin-1"))
    if not is_same(form.get("token", [""])[0], token):
        raise HTTPException(403, "this form is not from these pages")


async def _short_body(request: Request) -> bytes:
    """Return the body of a request. Raise HTTPException if it is longer than any form of ours."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LONGEST_FORM:
            raise HTTPException(413, "the form is too long")
    return body


async def error_page(request: Request, error: Exception) -> Response:
    """Return the page that says why there is no other one."""
    assert isinstance(error, HTTPException)
    return HTMLResponse(message_page(f"error {error.status_code}", error.detail), error.status_code)
