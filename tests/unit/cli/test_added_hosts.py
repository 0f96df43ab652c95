"""Addresses of hosts, their list, and what failures of ssh mean."""

from io import BytesIO
from pathlib import Path

import msgspec
import pytest

from termite.cli.doctor.farm_checks import judge_added_hosts
from termite.cli.ssh_hosts.bundle_source import Bundle
from termite.cli.ssh_hosts.far.place import WorkerPlace
from termite.cli.ssh_hosts.far.user_services import quoted, unit_text
from termite.cli.ssh_hosts.far_request import PYTHON
from termite.cli.ssh_hosts.host_trial import FarmOfHost
from termite.cli.ssh_hosts.host_worker import coordinator_from, upgrade_host
from termite.cli.ssh_hosts.ssh_faults import no_python_error, ssh_error
from termite.cli.subcommands.masters.ls import host_lines
from termite.cli.written_files.host_list import AddedHost, HostAddress, HostList, parse_host_address
from termite.engine.errors import UserError

ALPHA = HostAddress("", "alpha", 0)


@pytest.mark.parametrize(
    ("text", "address", "words"),
    [
        ("ssh://alpha", ALPHA, ["--", "alpha"]),
        ("ssh://alpha/", ALPHA, ["--", "alpha"]),
        ("ssh://me@alpha:22", HostAddress("me", "alpha", 22), ["-p", "22", "--", "me@alpha"]),
        (
            "ssh://me@[fe80::1%eth0]:2222",
            HostAddress("me", "fe80::1%eth0", 2222),
            ["-p", "2222", "--", "me@fe80::1%eth0"],
        ),
        ("ssh://10.0.0.1", HostAddress("", "10.0.0.1", 0), ["--", "10.0.0.1"]),
    ],
)
def test_an_address_becomes_the_words_of_ssh(text: str, address: HostAddress, words: list[str]) -> None:
    assert parse_host_address(text) == address
    assert address.words == words
    assert parse_host_address(address.text) == address
    assert address.text == f"ssh://{address.name}"


@pytest.mark.parametrize(
    "text",
    ["alpha", "ssh://", "ssh://-oProxyCommand=x", "ssh://-l@alpha", "ssh://me@", "ssh://a b", "ssh://alpha:0", "ssh://@alpha",
     "ssh://alpha:70000", "http://alpha", "ssh://me;x@alpha", "ssh://alpha/etc", "ssh://a\nb"],
)  # fmt: skip
def test_what_is_no_address_never_reaches_ssh(text: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_host_address(text)
    assert "ssh://HOST" in refused.value.hint


def test_a_list_keeps_one_entry_for_each_host() -> None:
    first = AddedHost("ssh://b", "farm:1233", "/secret", ("-jobs", "2"))
    hosts = HostList("id").with_host(first).with_host(AddedHost("ssh://a", "farm:1233", "/secret"))
    assert [one.name for one in hosts.hosts] == ["a", "b"]
    newer = hosts.with_host(AddedHost("ssh://b", "farm:1233", "/secret", release="2"))
    assert [one.release for one in newer.hosts] == ["", "2"]
    assert newer.find("ssh://b") != first and hosts.find("ssh://b") == first
    assert newer.without("ssh://a").hosts == newer.hosts[1:]
    assert msgspec.json.decode(msgspec.json.encode(newer), type=HostList) == newer
    assert host_lines(newer.hosts) == [
        "HOST     VERSION     COORDINATOR",
        "ssh://a  unfinished  farm:1233",
        "ssh://b  2           farm:1233",
    ]


def test_a_host_whose_adding_was_cut_off_is_not_upgraded() -> None:
    with pytest.raises(UserError, match="was not added to the end"):
        upgrade_host(AddedHost("ssh://a", "farm:1233", "/secret"), Bundle(Path("b"), "", "", "", BytesIO()), 0.0)


def test_an_added_host_that_is_not_registered_is_a_failure_of_its_own_farm() -> None:
    host = AddedHost("ssh://a", "farm:1233", "/secret", ("-coordinator", "farm:1233"))
    (found,) = judge_added_hosts("farm:1233", (host,), ())
    assert (found.area, found.level) == ("host ssh://a", "failure")
    assert "termite-ctl upgrade ssh://a" in found.mend
    assert list(judge_added_hosts("other:1233", (host,), ())) == []
    (found,) = judge_added_hosts("farm:1233", (AddedHost("ssh://a", "farm:1233", "/secret"),), ())
    assert "termite-ctl remove ssh://a, and add it again" in found.mend and "upgrade" not in found.mend


@pytest.mark.parametrize(
    ("said", "text", "hint"),
    [
        ("Host key verification failed.", "its host key is not known", "ssh -p 22 me@alpha, and compare"),
        (
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
            "its host key is not the one",
            "ssh-keygen -R '[alpha]:22'",
        ),
        ("me@alpha: Permission denied (publickey).", "does not let you in", "ssh-copy-id -p 22 me@alpha"),
        ("ssh: connect to host alpha port 22: Connection refused", "no sshd listens there", "systemctl start ssh"),
        ("ssh: Could not resolve hostname alpha: x", "no machine of this name", "see the name"),
        ("ssh: connect to host alpha port 22: Connection timed out", "does not answer", "firewalls"),
        ("debug\nsomething new", "something new", "try ssh -p 22 me@alpha true"),
        ("", "ssh ended with 255", "try ssh"),
    ],
)
def test_a_failure_of_ssh_is_named_with_what_helps(said: str, text: str, hint: str) -> None:
    error = ssh_error(HostAddress("me", "alpha", 22), 255, said)
    assert error.message.startswith("ssh://me@alpha:22: ") and text in error.message
    assert hint in error.hint


def test_a_host_without_the_python_of_the_bundle_is_named_with_the_one_that_it_has() -> None:
    error = no_python_error(ALPHA, PYTHON, "no-python x86_64 Python 3.13.1")
    assert error is not None and error.message == f"ssh://alpha: there is no {PYTHON}; its python3 is Python 3.13.1"
    error = no_python_error(ALPHA, PYTHON, "no-python x86_64 /bin/sh: 1: not found")
    assert error is not None and error.message == f"ssh://alpha: there is no {PYTHON}"
    assert no_python_error(ALPHA, PYTHON, '{"done": {}}') is None


@pytest.mark.parametrize(
    ("peer", "host", "address"),
    [
        ("10.0.0.5", "localhost", "10.0.0.5:1233"),
        ("fe80::5", "127.0.0.1", "[fe80::5]:1233"),
        ("10.0.0.5", "buildhost", "buildhost:1233"),
        ("", "localhost", "localhost:1233"),
    ],
)
def test_a_coordinator_on_this_machine_is_where_the_host_sees_us(peer: str, host: str, address: str) -> None:
    assert coordinator_from(peer, FarmOfHost(host, 1233, b"")) == address


@pytest.mark.parametrize(
    ("word", "shown"),
    [("a b", '"a b"'), ('"', '"\\x22"'), ("50%", '"50%%"'), ("a\\b\n", '"a\\x5cb\\x0a"')],
)
def test_a_word_of_a_unit_means_itself(word: str, shown: str) -> None:
    assert quoted(word) == shown


def test_the_unit_of_a_service_has_its_command_and_its_directories(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    text = unit_text(WorkerPlace(), "me@%h\n", ["/bin/true", "-name", "$HOME"])
    assert '\nExecStart="/bin/true" "-name" "$$HOME"\n' in text
    assert "Description=termite worker, added by me@%%h\n" in text
    assert f'Environment="XDG_STATE_HOME={tmp_path}/.termite-worker/state"\n' in text
