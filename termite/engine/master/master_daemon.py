"""Run the master as a daemon: open its socket and its tree, and run the tasks beside its jobs.

Each job has a task of its own, which the listener's fd watcher starts.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import trio

from termite.engine.decide.logic.later_code import leads_to_later_code
from termite.engine.errors import Retryable
from termite.engine.launch.launcher_socket import bound_socket
from termite.engine.launch.listener import LauncherListener
from termite.engine.launch.socket_place import SocketPlace, Whereabouts
from termite.engine.master.control_commands import ControlCommands, Sessions
from termite.engine.master.shared import Master, MasterConfig
from termite.engine.master.user_notices.silence_notices import SilenceNotices
from termite.engine.master.worker_shell.run_shell import JobAndShellRunner
from termite.engine.paths import tree_path
from termite.engine.tree.master_tree import MasterTree, TreeConfig

HOUSEKEEPING_S = 5.0  # how often; the precision of `idle_exit_s`
LOOKS = 20  # after an event: a tree is removed from its files up, and its socket goes before it does
LOOK_S = 0.1

log = logging.getLogger(__name__)


async def serve_master(config: MasterConfig, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
    """Serve launchers until cancelled, asked to shut down, or idle for `config.idle_exit_s`.

    Also end if the tree is moved or removed, or if the socket is and nobody builds. Report the
    socket's path through `task_status` when launchers can connect. Raise UserError if the socket or
    the tree cannot be opened, or if the file of rules has a mistake.
    """
    with bound_socket(config.socket) as listener, _open_tree(config) as tree, ExitStack() as stack:
        place = stack.enter_context(SocketPlace(config.socket, config.outside))
        if config.alias is not None:
            is_shared = config.own_path is not None
            stack.enter_context(other_name_of(config.socket.parent, config.alias, is_shared=is_shared))
        master = Master(config, tree)
        master.rule_file.require()
        stack.callback(master.memory.save)
        stack.callback(master.recorder.close)
        if master.cache is not None:
            stack.callback(master.cache.close)
        async with trio.open_nursery() as nursery:
            sessions = Sessions(nursery.cancel_scope.cancel)
            control = ControlCommands(master, sessions)
            launchers = LauncherListener(
                JobAndShellRunner(master), control.session, master.fd_watcher, bytes(config.socket)
            )
            nursery.start_soon(master.fd_watcher.run)
            nursery.start_soon(master.held_outputs.run)
            nursery.start_soon(master.settled_check.run)
            nursery.start_soon(master.pool.run)
            nursery.start_soon(SilenceNotices(master).run)
            nursery.start_soon(master.recorder.run)
            if master.cache is not None:
                nursery.start_soon(master.cache.run)
                nursery.start_soon(master.cache.take_care, lambda: not master.is_busy)
                if master.cache.shared is not None:
                    nursery.start_soon(master.cache.shared.run)
            nursery.start_soon(_keep_house, master, sessions)
            nursery.start_soon(_follow_place, master, place, sessions)
            nursery.start_soon(launchers.listen, listener)
            task_status.started(str(config.socket))


@contextmanager
def other_name_of(root: Path, alias: Path, *, is_shared: bool = False) -> Iterator[None]:
    """Make a symlink to the tree, and remove it at the end. Log it if that is impossible.

    A build tool may need a second name of the tree; `termite_build` explains it. If another master
    of that path has replaced the symlink, it stays. It also stays if it `is_shared` with other
    masters, which see their trees at the same path.
    """
    link = -1  # while it is open, no other symlink gets its number
    try:
        alias.parent.mkdir(mode=0o700, exist_ok=True)
        if not (is_shared and alias.is_symlink() and alias.readlink() == root):
            alias.unlink(missing_ok=True)  # a killed master has left it
            alias.symlink_to(root)
        link = os.open(alias, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        log.warning("alias-not-made path=%s reason=%s", alias, error.strerror)
    try:
        yield
    finally:
        if link >= 0:
            with suppress(OSError):  # the next master of the tree replaces it
                if os.fstat(link).st_nlink and not is_shared:
                    alias.unlink()
            os.close(link)


async def _keep_house(master: Master, sessions: Sessions) -> None:
    """Drop changes from the journal that every mirror has, and end an idle master."""
    idle_exit_s = master.config.idle_exit_s
    while True:
        await trio.sleep(HOUSEKEEPING_S)
        master.recorder.end_quiet_build()
        master.tree.forget_before(master.oldest_number)
        if master.is_busy:
            master.last_busy_s = trio.current_time()
        if idle_exit_s and trio.current_time() - master.last_busy_s > idle_exit_s:
            log.info("master-ended path=%s reason=idle", master.root)
            sessions.shut_down()


async def _follow_place(master: Master, place: SocketPlace, sessions: Sessions) -> None:
    """End the master if nobody can find it any more, so that the next one has the place.

    A build that runs keeps its connections, so it may end when only the socket is gone.
    """
    while True:
        with trio.move_on_after(HOUSEKEEPING_S) as quiet:
            await place.wait_for_event()
        for _ in range(1 if quiet.cancelled_caught else LOOKS):
            found = place.look()
            if found is Whereabouts.TREE_GONE:
                log.info("master-ended path=%s reason=tree-gone", master.root)
                sessions.shut_down()
            elif found is Whereabouts.SOCKET_GONE and not master.is_busy:
                log.info("master-ended path=%s reason=socket-gone", master.root)
                sessions.shut_down()
            await trio.sleep(LOOK_S)


@contextmanager
def _open_tree(config: MasterConfig) -> Iterator[MasterTree]:
    tree = MasterTree(
        TreeConfig(
            writable_root=tree_path(config.socket.parent),
            exports=config.exports,
            excludes=config.excludes,
            hidden=config.hidden,
            hash_cache=config.hash_cache,
            shares_temporary=config.shares_temporary,
        )
    )
    try:
        with suppress(Retryable):  # the next build looks again
            tree.notes.code_links.begin(
                lambda link: leads_to_later_code(link, tree_path(config.socket.parent), tree.may_have)
            )
        yield tree
    finally:
        tree.close()
