"""The messages of the Remote Execution API have the numbers of the API on the wire."""

from termite.engine.recall.shared_store.api_client import action_of
from termite.engine.recall.shared_store.api_messages import MESSAGES
from termite.engine.recall.shared_store.signatures import RecordKind, RecordName
from tests.unit.tables import each_row

DIGEST = {"hash": "ab", "size_bytes": 7}
PACKED = b"\x0a\x02ab\x10\x07"
FIRST = b"\x0a\x06" + PACKED
FILES = {"output_files": [{"path": "p"}]}


@each_row(
    ("name", "fields", "packed"),
    [
        ("Digest", DIGEST, PACKED),
        ("Command", {"arguments": ["a", "b"]}, b"\x0a\x01a\x0a\x01b"),
        (
            "Action",
            {"command_digest": DIGEST, "input_root_digest": DIGEST},
            b"\x0a\x06" + PACKED + b"\x12\x06" + PACKED,
        ),
        ("OutputFile", {"path": "p", "digest": DIGEST}, b"\x0a\x01p\x12\x06" + PACKED),
        ("ActionResult", {"exit_code": 1, "stdout_raw": b"r"}, b"\x20\x01\x2a\x01r"),
        (
            "ActionResult",
            {"output_files": [{"path": "p"}], "stdout_digest": DIGEST},
            b"\x12\x03\x0a\x01p\x32\x06" + PACKED,
        ),
        ("GetActionResultRequest", {"instance_name": "i", "inline_stdout": True}, b"\x0a\x01i\x18\x01"),
        ("UpdateActionResultRequest", {"action_result": {"exit_code": 1}}, b"\x1a\x02\x20\x01"),
        ("FindMissingBlobsRequest", {"blob_digests": [DIGEST]}, b"\x12\x06" + PACKED),
        ("FindMissingBlobsResponse", {"missing_blob_digests": [DIGEST]}, b"\x12\x06" + PACKED),
        ("BatchUpdateBlobsRequest", {"requests": [{"data": b"d"}]}, b"\x12\x03\x12\x01d"),
        ("BatchUpdateBlobsResponse", {"responses": [{"status": {"code": 3}}]}, b"\x0a\x04\x12\x02\x08\x03"),
        ("BatchReadBlobsRequest", {"digests": [DIGEST]}, b"\x12\x06" + PACKED),
        (
            "BatchReadBlobsResponse",
            {"responses": [{"data": b"d", "status": {"code": 5, "message": "m"}}]},
            b"\x0a\x0a\x12\x01d\x1a\x05\x08\x05\x12\x01m",
        ),
        ("ReadRequest", {"resource_name": "r"}, b"\x0a\x01r"),
        ("ReadResponse", {"data": b"d"}, b"\x52\x01d"),
        ("WriteRequest", {"write_offset": 3, "finish_write": True, "data": b"d"}, b"\x10\x03\x18\x01\x52\x01d"),
        ("WriteResponse", {"committed_size": 3}, b"\x08\x03"),
    ],
)
def test_fields_have_the_numbers_of_the_api(name: str, fields: dict[str, object], packed: bytes) -> None:
    message = MESSAGES[name](**fields)
    assert message.SerializeToString(deterministic=True) == packed
    assert MESSAGES[name].FromString(packed) == message


def test_unknown_fields_are_skipped() -> None:
    read = MESSAGES["ActionResult"].FromString(b"\x2a\x01r\x4a\x02\x0a\x00\xa2\x06\x01x")
    assert read.stdout_raw == b"r"


def test_an_action_has_the_kind_and_the_digest_of_its_record_only() -> None:
    name = RecordName(RecordKind.RESULT, b"\x01" * 32)
    digest, (command, action) = action_of(name)
    assert list(MESSAGES["Command"].FromString(command).arguments) == ["termite-record", "result", "01" * 32]
    assert digest.size == len(action)
    assert len({action_of(RecordName(kind, b"\x01" * 32)).digest for kind in RecordKind}) == len(RecordKind)
