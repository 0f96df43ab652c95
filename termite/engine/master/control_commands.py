"""Answer the control commands of `termite-ctl` and the front ends.

They are described in docs/develop/protocol.md, "Launcher". A connection that has sent `build-start`
counts as a build until it ends, and the master does not end while there is a build.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, cast

from termite import __version__
from termite.engine.decide.local_or_remote import Tie, may_run_as_short
from termite.engine.decide.logic.command_mask import mask_command
from termite.engine.decide.logic.commands import is_no_op
from termite.engine.decide.logic.switches import is_local_forbidden
from termite.engine.errors import Reason, UserError
from termite.engine.fleet.trouble import Trouble
from termite.engine.fleet.worker_commands import answer_about_worker, answer_drain
from termite.engine.fleet.worker_log import read_worker_log
from termite.engine.host.log_tail import MOST_RECORDS
from termite.engine.launch.listener import ControlSession, Feed
from termite.engine.master.recording.build_notes import BuildNotes
from termite.engine.master.user_notices.silence_notices import silence_report
from termite.engine.model import How, Invocation, Phase
from termite.engine.status import report
from termite.engine.status.control_requests import (
    AskDrain,
    AskLogs,
    AskRefresh,
    AskShutdown,
    AskStatus,
    AskWatch,
    AskWhy,
    AskWorker,
    BeginBuild,
    ControlAnswer,
    ControlRequest,
    EndBuild,
)
from termite.engine.wire.protocol.foreign_text import printable

if TYPE_CHECKING:
    from termite.engine.master.shared import Master


class Sessions:
    """The part of the daemon that the commands use: `shut_down` ends it."""

    def __init__(self, shut_down: Callable[[], None]) -> None:
        self.shut_down = shut_down


class ControlCommands:
    """The commands that a master answers."""

    def __init__(self, master: Master, sessions: Sessions) -> None:
        self._master = master
        self._sessions = sessions

    @contextlib.contextmanager
    def session(self) -> Iterator[ControlSession]:
        """Open a session for one connection, and yield the function that answers its requests.

        The function raises UserError, which is sent to the requester.
        """
        build = _Build(self._master, self._sessions)

        async def answer(request: ControlRequest) -> ControlAnswer | Feed:
            match request:
                case BeginBuild():
                    return self._start(build, request)
                case EndBuild():
                    return await build.end(request)
                case _:
                    return await self._answer(request)

        try:
            yield answer
        finally:
            build.close()

    async def _answer(self, request: ControlRequest) -> ControlAnswer | Feed:
        """Answer a request that is about no build of its connection."""
        match request:
            case AskStatus():
                return {**self._status(), "elsewhere": self._difference(request)}
            case AskRefresh():
                return await self._refresh()
            case AskShutdown():
                self._sessions.shut_down()
                return {}
            case AskLogs():
                return await self._logs(request)
            case AskWorker():
                return await answer_about_worker(self._master.pool, request)
            case AskDrain():
                await answer_drain(self._master.pool, request)
                return {}
            case AskWhy():
                return self._why(request)
            case AskWatch():
                return self._master.recorder.serve_reader
        raise AssertionError(f"no answer to {request.command}")

    def _status(self) -> ControlAnswer:
        master = self._master
        leases = [
            {
                "name": lease.worker,
                "slots": lease.slots,
                "running": lease.running,
                "jobs": lease.jobs,
                "cannot_trace": lease.cannot_trace,
                "clock_offset_ms": lease.offset_ns // 1_000_000,
                **lease.statistics(),
            }
            for lease in master.pool.leases
        ]
        rest: dict[str, object] = {
            "version": __version__,
            "pid": os.getpid(),
            "root": master.root,
            "own_path": str(master.config.own_path or master.root),
            "started": master.started_s,
            "waiting": master.pool.waiting,
            "silent": silence_report(master),
            "known_workers": [worker.name for worker in master.pool.fleet.workers],
            "drained": [worker.name for worker in master.pool.fleet.drained],
            "trouble": _trouble(master.pool.trouble),
            "local_slots": {"count": master.local_runs.slots.count, "busy": master.local_runs.slots.running},
            "short_below_ms": round(1000 * master.short.limit_s),
            "rules": len(master.book.rules),
            "plugins_broken": master.plugins.broken,
            "builds": master.builds,
            "journal": master.tree.number,
            "tree": master.tree.statistics(),
            "shared_store": master.cache.shared.report() if master.cache and master.cache.shared else None,
        }
        phases = [job.phase.value for job in master.jobs.values()] + [Phase.LOCAL.value] * master.local_runs.running
        traffic = master.pool.traffic()
        return report.status_report(master.counters, phases, leases, traffic.counts, traffic.messages, rest)

    async def _refresh(self) -> ControlAnswer:
        self._master.settled_check.request()
        await self._master.settled_check.wait()
        return {"journal": self._master.tree.number}

    async def _logs(self, request: AskLogs) -> ControlAnswer:
        """Return the last records of this master's log, or of a worker's, and the last number."""
        after, most, worker = request.after, request.most, request.worker
        if not 0 <= most <= MOST_RECORDS or after < 0:
            raise UserError("the control command 'logs' needs two numbers", hint="`after` and `most`, up to 1000")
        if worker:
            found = await read_worker_log(self._master.pool.leases, worker, after, most)
            return {"records": found.records, "number": found.number}
        tail = self._master.config.log_tail
        return {"records": [record.text for record in tail.records_after(after, most)], "number": tail.number}

    def _start(self, build: _Build, request: BeginBuild) -> ControlAnswer:
        """Start a build, unless its commands could not run where the requester is.

        Raise UserError if that is the own path of a tree that is built elsewhere.
        """
        if self._master.is_misplaced(request.cwd or "/"):
            reason = Reason.OTHER_PATH
            raise UserError(reason.words, hint=f"use --at {self._master.root}", reason=reason)
        found = self._difference(request)
        return {"elsewhere": found} if found else build.start(request)

    def _difference(self, request: ControlRequest) -> str:
        """Return the value of the reason for which the requester's vantage differs, or "".

        Commands of a requester that differs run where it is, never on a worker.
        """
        found = self._master.find_difference(request.vantage, request.cwd or "/")
        return found.value if found else ""

    def _why(self, request: AskWhy) -> ControlAnswer:
        master = self._master
        master.rule_file.refresh()
        invocation = _invocation(request)
        plugin, command = master.plugins.parse_with_plugin(invocation)
        verdict = master.decide(invocation.how, command)
        tie = Tie(verdict.tie) if verdict.tie else None
        if not verdict.local:
            tie = master.find_tie(
                *(command, verdict, invocation.env),
                find_refusal=lambda: master.refused.find_newest(command, time.time()),
            )
        return {
            "text": mask_command(command.text, command.env, master.config.env_exclude, command.argv),
            "plugin": plugin,
            "nothing": is_no_op(command),
            "local": verdict.local,
            "tied": {"reason": tie.reason.value, "place": printable(tie.place)} if tie else None,
            "forbidden": is_local_forbidden(invocation.env),
            "elsewhere": self._difference(request),
            "took_s": master.short.took_s(command) if may_run_as_short(verdict, invocation.env) else None,
            "short_s": master.short.limit_s,
            "rule": dataclasses.asdict(verdict.rule) if verdict.rule else None,
            "workers": [worker.name for worker in master.pool.fleet.workers],
            "bad_rules": master.rule_file.remark,
        }


class _Build:
    """A build, from build-start to the end of its connection."""

    def __init__(self, master: Master, sessions: Sessions) -> None:
        self._master = master
        self._sessions = sessions
        self._notes: BuildNotes | None = None

    def start(self, request: BeginBuild) -> ControlAnswer:
        """Request a check of the settled files, and return how to start the build tool.

        Raise UserError if no plugin knows the tool, or if the rules of the tree are not known.
        """
        self._master.rule_file.require()
        if self._notes is None:
            self._master.builds += 1
            self._master.begin_build()
            self._notes = self._record_start(request)
        self._master.settled_check.request()
        ours = self._master.machine.architecture
        foreign = [{"worker": name, "theirs": theirs, "ours": ours} for name, theirs in self._master.pop_foreign()]
        reply: ControlAnswer = {"bad_rules": self._master.rule_file.remark, "foreign": foreign}
        if not request.tool:
            return reply
        env, cwd = request.env, request.cwd or "/"
        command = self._master.plugins.build(
            *(request.tool, request.args, cwd, env, request.preload), self._master.other_name(cwd)
        )
        if command is None:
            raise UserError(f"no plugin knows how to start {request.tool}")
        named = {**command.env, **(self._master.recorder.variables_of(self._notes) if self._notes else {})}
        added = {name: content for name, content in named.items() if env.get(name) != content}
        return {**reply, "argv": list(command.argv), "exe": command.exe, "env": added}

    def _record_start(self, request: BeginBuild) -> BuildNotes:
        """Note the build, with the command line and the process of its front end."""
        command = (request.tool, *request.args)
        return self._master.recorder.start_build(request.tool, command, request.cwd or "/", request.env, request.pid)

    async def end(self, request: EndBuild) -> ControlAnswer:
        """Return the summary of everything that happened since the start.

        By then the records of the build are on the disk. `build` is its number there, or 0.
        """
        if self._notes is None:
            raise UserError("no build was started on this connection")
        self._master.local_runs.end_ended()
        await self._master.recorder.end_build(self._notes, request.exit_code, request.signal)
        summary = report.build_summary(self._notes.counters)
        return {
            **summary,
            "build": self._notes.recorded_id,
            "outside": self._outside(summary),
            "private": self._private(summary),
        }

    def _outside(self, summary: ControlAnswer) -> list[ControlAnswer]:
        """Return the places outside the tree that commands write, each with how many.

        The rule of a place is "" if few commands write there.
        """
        outside = self._master.outside
        found = _named(outside.summarized(cast(dict[str, int], summary["outside"])), summary)
        return [{**named, "rule": outside.rule_for(place) if named["is_many"] else ""} for place, named in found]

    def _private(self, summary: ControlAnswer) -> list[ControlAnswer]:
        """Return the private places that commands name, each with how many."""
        places = Counter(cast(dict[str, int], summary["private"]))
        return [named for _, named in _named(places, summary)]

    def close(self) -> None:
        """End the build, because its connection has ended."""
        if self._notes is not None:
            self._master.builds -= 1
            self._master.recorder.abandon_build(self._notes)
            self._notes = None


def _named(places: Counter[str], summary: ControlAnswer) -> list[tuple[str, ControlAnswer]]:
    """Return the places with the most commands, each with what a summary says of it."""
    commands = sum(cast(int, summary[kind]) for kind in ("remote", "local", "short", "cached", "failed"))
    many = report.frequent_places(places, commands)
    return [
        (place, {"place": printable(place), "count": count, "is_many": place in many})
        for place, count in places.most_common(report.NAMED_PATHS)
    ]


def _invocation(request: AskWhy) -> Invocation:
    if not request.argv:
        raise UserError("the control command 'why' needs a command")
    return Invocation(
        argv=tuple(request.argv),
        exe=request.argv[0],
        search=True,
        cwd=request.cwd or "/",
        env=request.env,
        how=How.PRELOAD if request.tool else How.DIRECT,
        tool=request.tool,
        notes=request.notes,
    )


def _trouble(trouble: Trouble | None) -> report.Report | None:
    return {"reason": trouble.reason.value, "text": trouble.text} if trouble else None
