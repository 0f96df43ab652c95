"""Bring a worker to a host, replace it and take it away: the steps of add, upgrade and remove."""

import getpass
import ipaddress
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, TypedDict

from termite.cli.amounts import size_text
from termite.cli.ssh_hosts.bundle_source import Bundle, find_bundle
from termite.cli.ssh_hosts.far.place import FarMessage
from termite.cli.ssh_hosts.far_request import HostRefusal, ask_host, checked
from termite.cli.ssh_hosts.host_trial import FarmOfHost, TriedWorker, check_farm_answers, read_farm, try_worker_of
from termite.cli.written_files.host_list import (
    SCHEME,
    AddedHost,
    HostAddress,
    changed_hosts,
    parse_host_address,
    read_hosts,
)
from termite.engine.errors import Reason, UserError
from termite.engine.model import Count
from termite.engine.wire.addresses import join_address
from termite.engine.wire.protocol.foreign_text import printable

REGISTER_S = (3.0, 5.0, 12.0)  # a worker tries again every few seconds; between these times its log is read
FINAL = (Reason.OTHER_PROTOCOL, Reason.CLOCKS_DIFFER, Reason.NOT_TRUSTED)
_REFUSED = re.compile(r"coordinator-missing coordinator=(\S+) detail=(.*) reason=(\S+)")
PATIENCE_S = 15.0  # for the far side of a connection that was cut off: it writes a note every few seconds
LINE_CHARACTERS = 2000  # of a log that a host shows
_ENDS = {
    "service": "it is a service of the user there",
    "detached": "it ends when that machine restarts, and `termite-ctl upgrade` starts it again",
}


class HostFacts(TypedDict):
    """The facts that a host tells of itself (far/far_worker.py)."""

    architecture: str
    kernel: str
    cores: Count
    memory_bytes: Count
    has: list[str]
    peer: str
    owner: str
    owner_id: str
    name: str
    digest: str
    is_running: bool


class _Failures(TypedDict):
    failures: list[tuple[str, str]]


class _Log(TypedDict):
    log: list[str]


class _Way(TypedDict):
    way: Literal["service", "detached"]


@dataclass(frozen=True, slots=True)
class Host:
    """A host that we change: its address, our own id in its settings, and the lines for people."""

    address: HostAddress
    owner_id: str

    def say(self, line: str) -> None:
        """Print a line about this host."""
        print(f"{self.address.text}: {printable(line)}", flush=True)

    def ask(self, action: str, *, secret: bytes = b"", bundle: BinaryIO | None = None, **more: object) -> FarMessage:
        """Let the far side do something. Raise UserError if it cannot be reached, or refuses."""
        return ask_host(self.address, {"action": action, **more}, self.say, secret=secret, bundle=bundle)

    def look(self) -> HostFacts:
        """Return the facts of the host. Raise UserError if the worker there is not ours."""
        facts = checked(self.address, self.ask("look"), HostFacts)
        if facts["owner_id"] not in ("", self.owner_id):
            raise UserError(
                f"{self.address.text}: the worker of this user there was added by {printable(str(facts['owner']))}",
                hint="remove it from where it was added, or add the host as another user: ssh://USER@HOST",
            )
        if (other := facts["name"]) not in ("", self.address.name) and read_hosts().find(SCHEME + other):
            raise UserError(
                f"{self.address.text}: the worker of this user there is that of {SCHEME}{other}",
                hint="use that address, or remove it first, or add the host as another user: ssh://USER@HOST",
            )
        return facts

    def facts_of_owner(self) -> FarMessage:
        """Return what the settings of a worker say of its owner."""
        owner = f"{getpass.getuser()}@{os.uname().nodename}"
        return {"owner": owner, "owner_id": self.owner_id, "name": self.address.name}


@dataclass(slots=True)
class _Attempt:
    """An attempt to add a host, and whether something may have been changed there."""

    host: Host
    has_begun: bool = False

    def claim(self, facts: HostFacts) -> None:
        """Note at the host that its worker is ours. Raise UserError if another one was faster."""
        self.has_begun = True
        try:
            self.host.ask("claim", seen=[facts["owner_id"], facts["name"]], **self.host.facts_of_owner())
        except HostRefusal:
            self.has_begun = False
            raise


def add_host(address: HostAddress, farm: FarmOfHost, entry: AddedHost, named: Path | None, words: list[str]) -> None:
    """Make a host a worker of a farm, with more flags of the worker, `words`.

    `named` is the bundle, or None for one of our own. If anything fails, nothing is left there.
    Raise UserError.
    """
    with changed_hosts() as box:
        if box[0].find(entry.address):
            raise UserError(f"{entry.address} was added already", hint="termite-ctl upgrade, or remove it first")
        box[0] = box[0].with_host(entry)  # at once: another termite-ctl may add the host at the same time
        host = Host(address, box[0].owner_id)
    with _undone_if_it_fails(host) as attempt:
        check_farm_answers(farm)
        facts = host.look()
        bundle = find_bundle(named)
        _check_architecture(host, facts, bundle)
        attempt.claim(facts)
        flags = ("-coordinator", coordinator_from(facts["peer"], farm), "-name", address.name, *words)
        if facts["is_running"]:  # of an earlier attempt
            host.ask("stop", wait_s=0)
        _send(host, facts, bundle)
        way = _start(host, farm, bundle.digest, flags)
        tried = _wait_for_job(host, farm)
        _note(AddedHost(entry.address, entry.coordinator, entry.secret, flags, bundle.release, bundle.digest))
    host.say(f"{_can_do(facts, tried)}; {_ENDS[way]}")


def upgrade_host(entry: AddedHost, bundle: Bundle, wait_s: float) -> None:
    """Replace the termite of a host. Jobs that run there go on to their ends, for up to `wait_s`.

    A worker that has this termite, and takes no jobs, is started again. If the new one cannot run
    or gets no job, the earlier one runs again. Raise UserError.
    """
    if not entry.flags:
        raise UserError(f"{entry.address} was not added to the end", hint="termite-ctl remove, and add it again")
    farm = read_farm(entry.coordinator, Path(entry.secret))
    check_farm_answers(farm)
    host = Host(parse_host_address(entry.address), read_hosts().owner_id)
    facts = host.look()
    if facts["digest"] == bundle.digest and facts["is_running"]:
        if _takes_jobs(host, farm):
            host.say(f"has this termite {bundle.release} already")
            return
        host.say(f"has this termite {bundle.release}, and takes no jobs: it is started again")
    coordinator = coordinator_from(facts["peer"], farm) if facts["peer"] else entry.flags[1]
    flags = ("-coordinator", coordinator, *entry.flags[2:])
    _check_architecture(host, facts, bundle)
    _send(host, facts, bundle)
    for text, mend in checked(host.address, host.ask("examine", digest=bundle.digest), _Failures)["failures"]:
        host.ask("tidy", digest=facts["digest"])
        raise UserError(f"{entry.address}: termite {bundle.release} cannot run there: {text}", hint=mend)
    has_ended = False
    try:
        host.ask("stop", wait_s=wait_s)
        has_ended = True
        way = _start(host, farm, bundle.digest, flags)
        tried = _wait_for_job(host, farm)
    except BaseException as error:
        is_untouched = isinstance(error, HostRefusal) and not has_ended  # another termite-ctl changes it
        if facts["digest"] in facts["has"] and not is_untouched:
            _go_back(host, farm, facts["digest"], flags, entry.release)
        raise
    host.ask("tidy", digest=bundle.digest)
    _note(AddedHost(entry.address, entry.coordinator, entry.secret, flags, bundle.release, bundle.digest))
    host.say(f"termite {bundle.release}; {_can_do(facts, tried)}; {_ENDS[way]}")


def _go_back(host: Host, farm: FarmOfHost, digest: str, flags: tuple[str, ...], release: str) -> None:
    """Start the termite of before, after an upgrade that has failed or was interrupted.

    If that is impossible, a line says so, and what starts it.
    """
    why = "interrupted"
    try:
        host.ask("stop", wait_s=0, patience_s=PATIENCE_S)
        _start(host, farm, digest, flags)
        host.ask("tidy", digest=digest)
        why = ""
    except UserError as error:
        why = error.message
    finally:
        if why:
            again = f"termite-ctl upgrade {host.address.text} starts one"
            host.say(f"no worker runs there, or it ends after its jobs: {why}; {again}")
    if not why:
        host.say(f"termite {release} runs there again")


def _takes_jobs(host: Host, farm: FarmOfHost) -> bool:
    """Return whether the worker that runs there is registered, and runs a job."""
    try:
        return try_worker_of(farm, host.address.name, REGISTER_S[0]) is not None
    except UserError:  # if it still fails after the restart, that says why
        return False


def remove_host(address: HostAddress, wait_s: float) -> None:
    """End the worker of a host after its jobs, and remove everything there. Raise UserError."""
    host = Host(address, read_hosts().owner_id)
    facts = host.look()
    if not facts["owner_id"] and not read_hosts().find(address.text):
        raise UserError(f"{address.text} was not added", hint="termite-ctl ls shows those that were")
    host.ask("clean", wait_s=wait_s)
    forget_host(address)


def forget_host(address: HostAddress) -> None:
    """Remove a host from the list."""
    with changed_hosts() as box:
        box[0] = box[0].without(address.text)


def coordinator_from(peer: str, farm: FarmOfHost) -> str:
    """Return the address by which a host reaches the coordinator.

    `peer` is the address from which the host sees us. A coordinator on this machine is there.
    """
    return join_address(peer, farm.port) if peer and _is_loopback(farm.host) else farm.text


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _note(entry: AddedHost) -> None:
    with changed_hosts() as box:
        box[0] = box[0].with_host(entry)


@contextmanager
def _undone_if_it_fails(host: Host) -> Iterator[_Attempt]:
    """Remove everything that was begun on the host if the block fails.

    If that is impossible, the host stays in the list.
    """
    attempt = _Attempt(host)
    try:
        yield attempt
    except BaseException:
        try:
            if attempt.has_begun:
                host.ask("clean", wait_s=0, patience_s=PATIENCE_S)
        except UserError as error:
            host.say(f"what was begun there could not be undone: {error.message}; termite-ctl remove does it later")
        else:
            forget_host(host.address)
        raise


def _check_architecture(host: Host, facts: HostFacts, bundle: Bundle) -> None:
    """Raise UserError if the bundle is for machines of another kind."""
    if facts["architecture"] != bundle.machine:
        raise UserError(
            f"{host.address.text}: that machine is {facts['architecture']}, and the bundle is for {bundle.machine}",
            hint="a farm for it has masters of its kind: add it from such a machine",
        )


def _send(host: Host, facts: HostFacts, bundle: Bundle) -> None:
    """Send the bundle, unless the host has it. Raise UserError if that fails."""
    if bundle.digest not in facts["has"]:
        host.say(f"gets termite {bundle.release}, {size_text(bundle.size_bytes)}")
        host.ask("install", bundle=bundle.file, digest=bundle.digest)


def _start(host: Host, farm: FarmOfHost, digest: str, flags: tuple[str, ...]) -> str:
    """Start the worker, and return how it runs."""
    started = host.ask("start", secret=farm.secret, digest=digest, flags=flags, **host.facts_of_owner())
    return checked(host.address, started, _Way)["way"]


def _wait_for_job(host: Host, farm: FarmOfHost) -> TriedWorker:
    """Wait until the worker has run a job. Otherwise raise UserError with what its log says."""
    why = ""
    for limit_s in REGISTER_S:
        if (tried := try_worker_of(farm, host.address.name, limit_s)) is not None:
            return tried
        lines = checked(host.address, host.ask("log"), _Log)["log"]
        found = [match for line in lines if (match := _REFUSED.search(line[:LINE_CHARACTERS]))]
        why = f": {printable(found[-1][2])}" if found else ""
        if found and found[-1][3] in FINAL:
            break
    raise UserError(
        f"{host.address.text}: its worker does not reach the coordinator{why}",
        hint="name the coordinator with -coordinator as that machine knows it, and see firewalls for its port",
    )


def _can_do(facts: HostFacts, tried: TriedWorker) -> str:
    """Return what a host can do, for people."""
    memory = size_text(facts["memory_bytes"])
    machine = f"{facts['cores']} cores, {memory} of memory, {facts['architecture']}, Linux {facts['kernel']}"
    return f"takes jobs in {tried.listed.slots} slots: {machine}; {tried.finding.text}"
