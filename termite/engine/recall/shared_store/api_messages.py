"""Describe the messages of the Remote Execution API that a shared store needs.

The numbers are those of version 2 of the API, of google.rpc.Status and of google.bytestream. Only
fields that termite reads or writes are here: a parser skips the others. The classes are in a pool
of their own, so that another package may bring the whole API.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "termite.remote_cache"
_API = "/build.bazel.remote.execution.v2"
_PLAIN = {"bool": 8, "bytes": 12, "int32": 5, "int64": 3, "string": 9}
_MESSAGE = 11
_ONE, _MANY = 1, 3

# Each field is `NAME KIND NUMBER`. A kind that ends in * is repeated.
_FIELDS = {
    "Digest": ("hash string 1", "size_bytes int64 2"),
    "Status": ("code int32 1", "message string 2"),
    "Command": ("arguments string* 1",),
    "Action": ("command_digest Digest 1", "input_root_digest Digest 2"),
    "OutputFile": ("path string 1", "digest Digest 2"),
    "ActionResult": (
        "output_files OutputFile* 2",
        "exit_code int32 4",
        "stdout_raw bytes 5",
        "stdout_digest Digest 6",
    ),
    "GetActionResultRequest": ("instance_name string 1", "action_digest Digest 2", "inline_stdout bool 3"),
    "UpdateActionResultRequest": ("instance_name string 1", "action_digest Digest 2", "action_result ActionResult 3"),
    "FindMissingBlobsRequest": ("instance_name string 1", "blob_digests Digest* 2"),
    "FindMissingBlobsResponse": ("missing_blob_digests Digest* 2",),
    "WrittenBlob": ("digest Digest 1", "data bytes 2"),
    "BatchUpdateBlobsRequest": ("instance_name string 1", "requests WrittenBlob* 2"),
    "UpdatedBlob": ("digest Digest 1", "status Status 2"),
    "BatchUpdateBlobsResponse": ("responses UpdatedBlob* 1",),
    "BatchReadBlobsRequest": ("instance_name string 1", "digests Digest* 2"),
    "ReadBlob": ("digest Digest 1", "data bytes 2", "status Status 3"),
    "BatchReadBlobsResponse": ("responses ReadBlob* 1",),
    "ReadRequest": ("resource_name string 1",),
    "ReadResponse": ("data bytes 10",),
    "WriteRequest": ("resource_name string 1", "write_offset int64 2", "finish_write bool 3", "data bytes 10"),
    "WriteResponse": ("committed_size int64 1",),
}


class ApiMethod(NamedTuple):
    """A method of the API: its path, and the names of its messages."""

    path: str
    request: str
    answer: str


GET_RESULT = ApiMethod(f"{_API}.ActionCache/GetActionResult", "GetActionResultRequest", "ActionResult")
UPDATE_RESULT = ApiMethod(f"{_API}.ActionCache/UpdateActionResult", "UpdateActionResultRequest", "ActionResult")
_CAS = f"{_API}.ContentAddressableStorage"
FIND_MISSING = ApiMethod(f"{_CAS}/FindMissingBlobs", "FindMissingBlobsRequest", "FindMissingBlobsResponse")
UPDATE_BLOBS = ApiMethod(f"{_CAS}/BatchUpdateBlobs", "BatchUpdateBlobsRequest", "BatchUpdateBlobsResponse")
READ_BLOBS = ApiMethod(f"{_CAS}/BatchReadBlobs", "BatchReadBlobsRequest", "BatchReadBlobsResponse")
READ_STREAM = ApiMethod("/google.bytestream.ByteStream/Read", "ReadRequest", "ReadResponse")
WRITE_STREAM = ApiMethod("/google.bytestream.ByteStream/Write", "WriteRequest", "WriteResponse")


def _classes() -> Mapping[str, Any]:
    described = descriptor_pb2.FileDescriptorProto(name="termite/remote_cache.proto", package=PACKAGE, syntax="proto3")
    for name, fields in _FIELDS.items():
        message = described.message_type.add(name=name)
        for text in fields:
            field, kind, number = text.split()
            label = _MANY if kind.endswith("*") else _ONE
            kind = kind.rstrip("*")
            added = message.field.add(name=field, number=int(number), label=label, type=_PLAIN.get(kind, _MESSAGE))
            if kind not in _PLAIN:
                added.type_name = f".{PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(described.SerializeToString())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in _FIELDS}


# The classes by name. protobuf makes them, so no checker of types knows them.
MESSAGES: Mapping[str, Any] = _classes()
