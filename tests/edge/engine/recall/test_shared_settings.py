"""Settings of a shared store: what may be written there, and that TLS is what it says."""

import datetime
import ipaddress
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from termite.cli.subcommands.registry import find_subcommand, subcommand_parser
from termite.engine.errors import UserError
from termite.engine.recall.shared_store import shared_settings
from termite.engine.recall.shared_store.circuit_breaker import StoreFailed
from termite.engine.recall.shared_store.shared_results import open_results
from termite.engine.recall.shared_store.shared_settings import (
    OWN_NAME,
    SharedSettings,
    StoreAddress,
    check_extra,
    files_of_settings,
    parse_address,
    read_shared_settings,
)
from termite.engine.recall.shared_store.signatures import parse_public_key
from termite.engine.recall.shared_store.writer_keys import make_writer_key, read_writer_key
from tests.edge.engine.recall.remote_cache_server import RemoteCacheServer

URL = "grpc://cache:8980"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("grpc://cache:8980", StoreAddress("cache:8980", "", False)),
        ("grpcs://cache.example:443/", StoreAddress("cache.example:443", "", True)),
        ("grpcs://[::1]:443/team/a", StoreAddress("[::1]:443", "team/a", True)),
    ],
)
def test_an_address_names_host_port_and_instance(text: str, address: StoreAddress) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "cache:8980", "http://cache:1", "grpc://cache", "grpc://:x", "grpc://a b:1", "grpc:/a:1"]
)
def test_what_is_no_address_is_told(text: str) -> None:
    with pytest.raises(UserError, match="no address"):
        parse_address(text)


def settings(where: Path, mode: int = 0o600, /, **content: object) -> Path:
    path = where / "shared.json"
    path.write_text(json.dumps(content))
    path.chmod(mode)
    return path


def test_a_reader_trusts_whom_the_settings_name(tmp_path: Path) -> None:
    key = make_writer_key(tmp_path / "ci.pem")
    path = settings(tmp_path, 0o644, TrustedWriters={"ci": key.public_text}, Key="ci.pem")
    read = read_shared_settings(URL, path, writes=False)
    assert (read.trusted, read.key) == ({key.public: "ci"}, None)
    assert files_of_settings(path) == (path, tmp_path / "ci.pem")


def test_a_writer_trusts_itself(tmp_path: Path) -> None:
    key = make_writer_key(tmp_path / "ci.pem")
    read = read_shared_settings(URL, settings(tmp_path, Key="ci.pem", Headers={"x-token": "t"}), writes=True)
    assert read.trusted == {key.public: OWN_NAME}
    assert read.key is not None and read.key.public == key.public
    assert read.headers == (("x-token", "t"),)


def test_wrong_settings_are_told(tmp_path: Path) -> None:
    key = make_writer_key(tmp_path / "ci.pem")
    trusted = {"ci": key.public_text}
    (tmp_path / "open.pem").write_bytes((tmp_path / "ci.pem").read_bytes())
    (tmp_path / "open.pem").chmod(0o644)
    (tmp_path / "none.pem").write_text("none")
    (tmp_path / "none.pem").chmod(0o600)
    other = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "ec.pem").write_bytes(_pem(other))
    (tmp_path / "ec.pem").chmod(0o600)
    for content, writes, mode, said in (
        ({}, False, 0o600, "no TrustedWriters"),
        ({"TrustedWriters": trusted}, True, 0o600, "no Key"),
        ({"TrustedWriters": {"ci": "x"}}, False, 0o600, "no public key"),
        ({"Key": "open.pem"}, True, 0o600, "others can read"),
        ({"Key": "none.pem"}, True, 0o600, "no key of a writer"),
        ({"Key": "ec.pem"}, True, 0o600, "not of Ed25519"),
        ({"Key": "gone.pem"}, True, 0o600, "No such file"),
        ({"TrustedWriters": trusted, "Headers": {"a": "b"}}, False, 0o644, "others can read"),
        ({"TrustedWriters": trusted, "Headers": {"A": "b"}}, False, 0o600, "name of a header"),
        ({"TrustedWriters": trusted, "Headers": {"a": "b\n"}}, False, 0o600, "text of a header"),
        ({"TrustedWriters": trusted, "Authorities": "gone.pem"}, False, 0o600, "No such file"),
        ({"TrustedWriters": trusted, "CertificateKey": "open.pem"}, False, 0o600, "others can read"),
        ({"Trusted": trusted}, False, 0o600, "unknown field"),
    ):
        with pytest.raises(UserError, match=said):
            read_shared_settings(URL, settings(tmp_path, mode, **content), writes=writes)
    with pytest.raises(UserError, match="No such file"):
        read_shared_settings(URL, tmp_path / "gone.json", writes=False)
    with pytest.raises(UserError, match="no TrustedWriters"):
        read_shared_settings(URL, None, writes=False)


def test_without_the_extra_the_user_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    check_extra()
    monkeypatch.setattr(shared_settings, "PACKAGES", ("no_such_package", "no_such_package.below", "grpc"))
    with pytest.raises(UserError) as told:
        check_extra()
    assert "not installed: no_such_package, no_such_package.below" in told.value.message
    assert told.value.hint == "pip install termite[remote-cache]"


def test_a_master_imports_the_extra_only_if_it_has_a_shared_store() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", "import sys, termite.engine.master.shared; print('grpc' in sys.modules)"],
        capture_output=True,
        text=True,
    )
    assert shown.stdout == "False\n", shown


def test_a_key_is_made_once_and_for_its_user_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "key.pem"
    flags = subcommand_parser("signkey").parse_args([str(path)])
    assert find_subcommand("signkey").run(flags) == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert parse_public_key(capsys.readouterr().out.split()[-1]) == read_writer_key(path).public
    with pytest.raises(UserError, match="exists already"):
        find_subcommand("signkey").run(flags)


# -- TLS --------------------------------------------------------------------------------------------------------------


class Authority:
    """An authority, which makes certificates for names."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self.make("authority", self.key)

    def make(self, name: str, key: ec.EllipticCurvePrivateKey) -> bytes:
        subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, who)]) for who in (name, "authority"))
        now = datetime.datetime.now(datetime.UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=name == "authority", path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def server(authority: Authority) -> Iterator[RemoteCacheServer]:
    """Yield a server with TLS, which lets in whom the authority knows."""
    key = ec.generate_private_key(ec.SECP256R1())
    pair = _pem(key), authority.make("server", key)
    server = RemoteCacheServer()
    server.start(grpc.ssl_server_credentials([pair], authority.certificate, require_client_auth=True))
    yield server
    server.stop()


def answer(found: SharedSettings) -> str:
    """Return the code with which a store fails, "" if it answers."""
    shared = open_results(found)
    try:
        shared.connect(5.0)
    except StoreFailed as error:
        return error.code
    finally:
        shared.close()
    return ""


def test_both_sides_prove_who_they_are(tmp_path: Path, authority: Authority, server: RemoteCacheServer) -> None:
    own, stranger = ec.generate_private_key(ec.SECP256R1()), Authority()
    for name, content in (
        ("authority.pem", authority.certificate),
        ("stranger.pem", stranger.certificate),
        ("client.pem", authority.make("client", own)),
        ("client.key", _pem(own)),
    ):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    key = make_writer_key(tmp_path / "ci.pem")
    pair = {"Certificate": "client.pem", "CertificateKey": "client.key"}
    for scheme, named, code in (
        ("grpcs", {"Authorities": "authority.pem", **pair}, ""),
        ("grpcs", {"Authorities": "authority.pem"}, "UNAVAILABLE"),
        ("grpcs", {"Authorities": "stranger.pem", **pair}, "UNAVAILABLE"),
        ("grpcs", pair, "UNAVAILABLE"),
        ("grpc", {}, "UNAVAILABLE"),
    ):
        path = settings(tmp_path, TrustedWriters={"ci": key.public_text}, **named)
        found = read_shared_settings(f"{scheme}://localhost:{server.port}", path, writes=False)
        assert (named, answer(found)) == (named, code)
