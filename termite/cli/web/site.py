"""The routes of the pages."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from termite.cli.client import Client
from termite.cli.display.build_text import listed_object
from termite.cli.display.trace_events import trace_object
from termite.cli.web import pages
from termite.cli.web.forms import check_form, error_page
from termite.cli.web.html_text import Html, address_of
from termite.cli.web.live_follower import LiveFollower
from termite.cli.web.metrics import metrics_text
from termite.cli.web.static_files import static_file
from termite.cli.web.worker_pages import drain_form, report_part, worker_page
from termite.engine.errors import UserError
from termite.engine.history.logic.job_record import BuildRecord, JobRecord, Where, as_object
from termite.engine.history.past_builds import PastBuilds
from termite.engine.status.control_requests import AskDrain, AskWorker, ControlAnswer, ControlRequest
from termite.engine.wire.protocol.fleet_messages import WorkerReport

T = TypeVar("T")

ASK_S = 15.0  # the master waits 10 s for the coordinator
LAUNCHERS = ("termite", "termite-shell")


class Site:
    """The pages of one tree. `token` is what a form must send."""

    def __init__(self, tree: Path, past: PastBuilds, follower: LiveFollower, token: str) -> None:
        self._tree = tree
        self._past = past
        self._follower = follower
        self._token = token

    def app(self) -> Starlette:
        """Return the application, without its guard."""
        return Starlette(
            routes=[
                Route("/", self.front),
                Route("/now", self.now),
                Route("/build/{number:int}", self.build),
                Route("/build/{number:int}/timeline.json", self.timeline),
                Route("/job/{number:int}", self.job),
                Route("/job/{number:int}/kill", self.kill, methods=["POST"]),
                Route("/worker/{name:path}", self.worker),
                Route("/drain/{name:path}", self.drain, methods=["POST"]),
                Route("/undrain/{name:path}", self.drain, methods=["POST"]),
                Route("/status.json", self.status),
                Route("/trace.json", self.trace),
                Route("/metrics", self.metrics),
                Route("/static/{name}", static_file),
            ],
            exception_handlers={HTTPException: error_page},
        )

    async def front(self, request: Request) -> Response:
        """Answer with the page of the tree."""
        builds = await self._read(self._past.builds)
        return HTMLResponse(pages.front_page(str(self._tree), builds, self._now()))

    async def now(self, request: Request) -> Response:
        """Answer with the part of the front page that changes."""
        return HTMLResponse(self._now())

    async def build(self, request: Request) -> Response:
        """Answer with the page of a build."""
        build, jobs = await self._read(lambda: self._build(request.path_params["number"]))
        return HTMLResponse(pages.build_page(build, jobs))

    async def timeline(self, request: Request) -> Response:
        """Answer with what the script draws of a build."""
        build, jobs = await self._read(lambda: self._build(request.path_params["number"]))
        return JSONResponse(pages.timeline_object(build, jobs))

    async def trace(self, request: Request) -> Response:
        """Answer with a build as a trace: that of the query `build`, or the newest one."""
        word = request.query_params.get("build", "0")
        build, jobs = await self._read(lambda: self._build(int(word) if word.isdecimal() else -1))
        name = f"termite-build-{build.id}.trace.json"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(json.dumps(trace_object(build, jobs)), media_type="application/json", headers=headers)

    async def job(self, request: Request) -> Response:
        """Answer with the page of a job, finished or not."""
        job = await self._job(request.path_params["number"])
        is_open = job.id in (self._follower.state.jobs if self._follower.state else {})
        can_kill = is_open and can_be_ended(job)
        return HTMLResponse(pages.job_page(job, str(self._tree), time.time(), can_kill, self._token))

    async def kill(self, request: Request) -> Response:
        """End a job that runs, as Ctrl-C in its launcher would."""
        await check_form(request, self._token)
        state = self._follower.state
        job = state.jobs.get(request.path_params["number"]) if state else None
        if job is None:
            raise HTTPException(404, "this job does not run")
        if not can_be_ended(job) or not end_launcher(job.pid):
            raise HTTPException(409, "only jobs that wait or run on a worker can be ended here")
        return RedirectResponse(f"/job/{job.id}", 303)

    async def worker(self, request: Request) -> Response:
        """Answer with the page of a worker."""
        name = request.path_params["name"]
        jobs = await self._read(self._newest_jobs)
        report = await self._report_part(name)
        return HTMLResponse(worker_page(name, self._follower.state, jobs, time.time(), report))

    def _newest_jobs(self) -> list[JobRecord]:
        """Return the jobs of the newest build, and those by hand, which go on beside all builds."""
        builds = self._past.builds()
        by_hand = next((build for build in builds[1:] if not build.front_end), None)
        return [job for build in (*builds[:1], *([by_hand] if by_hand else [])) for job in self._past.jobs(build.id)]

    async def drain(self, request: Request) -> Response:
        """Let a worker take no new jobs, or take jobs again, as the route says."""
        await check_form(request, self._token)
        name, is_drained = request.path_params["name"], request.url.path.startswith("/drain/")
        try:
            await self._ask(AskDrain(name, is_drained))
        except UserError as error:
            raise HTTPException(409, str(error)) from error
        return RedirectResponse(address_of(["worker", name]), 303)

    async def _report_part(self, name: str) -> Html:
        """Return what the worker says of itself, asked through the master."""
        if self._follower.state is None:
            return Html("")
        try:
            answer = await self._ask(AskWorker(name))
            report = msgspec.convert(answer["report"], WorkerReport)
        except (UserError, KeyError, msgspec.ValidationError) as error:
            return report_part(None, str(error))
        return Html(drain_form(name, self._token, is_drained=report.is_drained) + report_part(report))

    async def _ask(self, request: ControlRequest) -> ControlAnswer:
        """Send a request to the master. Raise UserError if it does not answer well."""
        return await trio.to_thread.run_sync(lambda: Client(self._follower.path).ask(request, ASK_S))

    async def status(self, request: Request) -> Response:
        """Answer with what happens now, and the builds, as JSON."""
        state = self._follower.state
        builds = await self._read(self._past.builds)
        return JSONResponse(
            {
                "tree": str(self._tree),
                "master": as_object(state.master) if state else None,
                "trouble": self._follower.trouble,
                "workers": [as_object(worker) for worker in state.workers.values()] if state else [],
                "jobs": [as_object(job) for job in state.jobs.values()] if state else [],
                "running_builds": [as_object(build) for build in state.builds_now] if state else [],
                "waits_for": state.waits_for if state else "",
                "builds": [listed_object(build) for build in builds],
            }
        )

    async def metrics(self, request: Request) -> Response:
        """Answer Prometheus."""
        builds = await self._read(self._past.builds)
        text = metrics_text(builds, self._follower.state, time.time())
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    def _now(self) -> Html:
        return pages.now_part(self._follower.state, time.time(), self._follower.trouble)

    async def _read(self, read: Callable[[], T]) -> T:
        """Read records in a thread, so that other requests are answered meanwhile."""
        return await trio.to_thread.run_sync(read)

    def _build(self, number: int) -> tuple[BuildRecord, list[JobRecord]]:
        """Return a build with its jobs; 0 is the newest one."""
        builds = self._past.builds()
        build = next((one for one in builds if one.id == (number or builds[0].id)), None)
        if build is None:
            raise HTTPException(404, "no such build is recorded: the last 20 are")
        return build, self._past.jobs(build.id)

    async def _job(self, number: int) -> JobRecord:
        state = self._follower.state
        job = state.jobs.get(number) if state else None
        if job is None:
            job = await self._read(lambda: self._past.job(number))
        if job is None:
            raise HTTPException(404, "no such job is recorded: those of the last 20 builds are")
        return job


def can_be_ended(job: JobRecord) -> bool:
    """Return True if the job waits or runs on a worker.

    Otherwise its launcher has become the command.
    """
    return job.where in (Where.UNDECIDED, Where.WORKER)


def end_launcher(pid: int) -> bool:
    """Send SIGTERM to a launcher. Return False if the process is none, or none of this user."""
    try:
        process = os.pidfd_open(pid)
    except (OSError, OverflowError):
        return False
    try:
        # After a new installation, those that run are deleted files.
        name = os.path.basename(os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)"))
        if os.stat(f"/proc/{pid}").st_uid != os.geteuid() or name not in LAUNCHERS:
            return False
        signal.pidfd_send_signal(process, signal.SIGTERM)
    except OSError:
        return False
    finally:
        os.close(process)
    return True
