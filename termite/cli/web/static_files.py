"""Serve the style sheet and the script, and no other file."""

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

STATIC = Path(__file__).parent / "static"
STATIC_FILES = {"style.css": "text/css", "timeline.js": "text/javascript"}


async def static_file(request: Request) -> Response:
    """Answer with the style sheet or the script."""
    name = request.path_params["name"]
    if name not in STATIC_FILES:
        raise HTTPException(404, "no such file")
    return FileResponse(STATIC / name, media_type=STATIC_FILES[name])
