"""The routes of the pages of a farm."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from termite.cli.web.farm.farm_metrics import farm_metrics_text, farm_object
from termite.cli.web.farm.farm_pages import (
    farm_drain_form,
    farm_page,
    farm_part,
    farm_worker_page,
    farm_worker_part,
)
from termite.cli.web.farm.farm_reader import FarmReader
from termite.cli.web.forms import check_form, error_page
from termite.cli.web.html_text import Html, address_of
from termite.cli.web.static_files import static_file
from termite.engine.errors import UserError


class FarmSite:
    """The pages of the farm at `address`. `token` is what a form must send."""

    def __init__(self, address: str, reader: FarmReader, token: str) -> None:
        self._address = address
        self._reader = reader
        self._token = token

    def app(self) -> Starlette:
        """Return the application, without its guard."""
        return Starlette(
            routes=[
                Route("/", self.front),
                Route("/now", self.now),
                Route("/worker/{name:path}", self.worker),
                Route("/worker-now/{name:path}", self.worker_now),
                Route("/drain/{name:path}", self.drain, methods=["POST"]),
                Route("/undrain/{name:path}", self.drain, methods=["POST"]),
                Route("/status.json", self.status),
                Route("/metrics", self.metrics),
                Route("/static/{name}", static_file),
            ],
            exception_handlers={HTTPException: error_page},
        )

    async def front(self, request: Request) -> Response:
        """Answer with the page of the farm."""
        return HTMLResponse(farm_page(self._address, await self._now()))

    async def now(self, request: Request) -> Response:
        """Answer with the part of the front page that changes."""
        return HTMLResponse(await self._now())

    async def worker(self, request: Request) -> Response:
        """Answer with the page of a worker."""
        name = request.path_params["name"]
        known, interval_s, report = await self._reader.worker(name)
        if known is None:
            raise HTTPException(404, "the coordinator knows no such worker")
        now = farm_worker_part(known, interval_s, report.value, report.trouble)
        return HTMLResponse(farm_worker_page(name, now, farm_drain_form(name, known, self._token)))

    async def worker_now(self, request: Request) -> Response:
        """Answer with the part of a worker's page that changes."""
        known, interval_s, report = await self._reader.worker(request.path_params["name"])
        return HTMLResponse(farm_worker_part(known, interval_s, report.value, report.trouble))

    async def drain(self, request: Request) -> Response:
        """Let a worker take no new jobs, or take jobs again, as the route says."""
        await check_form(request, self._token)
        name = request.path_params["name"]
        try:
            await self._reader.drain(name, is_drained=request.url.path.startswith("/drain/"))
        except UserError as error:
            raise HTTPException(409, str(error)) from error
        return RedirectResponse(address_of(["worker", name]), 303)

    async def status(self, request: Request) -> Response:
        """Answer with the state of the farm, as JSON."""
        farm = await self._reader.farm()
        return JSONResponse(farm_object(self._address, farm.value, farm.trouble))

    async def metrics(self, request: Request) -> Response:
        """Answer Prometheus."""
        farm = await self._reader.farm()
        text = farm_metrics_text(farm.value, farm.trouble)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _now(self) -> Html:
        farm = await self._reader.farm()
        return farm_part(farm.value, farm.trouble)
