"""Make the calls of the Remote Execution API that a shared store needs.

A record is the stdout of an action that nobody has executed. The command of this action has only
the kind and the digest of the record. The contents of a result are output files, so that a server
keeps them as long as the result, and answers that it has none if one is gone.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

# The library would write lines of its own to our log. It reads this when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc

from termite.engine.model import Digest
from termite.engine.recall.shared_store.api_messages import (
    FIND_MISSING,
    GET_RESULT,
    MESSAGES,
    READ_BLOBS,
    READ_STREAM,
    UPDATE_BLOBS,
    UPDATE_RESULT,
    WRITE_STREAM,
    ApiMethod,
)
from termite.engine.recall.shared_store.circuit_breaker import StoreFailed
from termite.engine.recall.shared_store.shared_settings import SharedSettings
from termite.engine.recall.shared_store.signatures import RecordName

BATCH_BYTES = 3 * 1024 * 1024  # servers take messages of 4 MiB, with all that is around the contents
BATCH_BLOBS = 500
PIECE_BYTES = 1024 * 1024  # of a long content
INLINE_RECORD_BYTES = 256 * 1024  # a longer record is a content of its own
EMPTY = Digest(hashlib.sha256().digest(), 0)
# The second one: the channel is closed, because the master ends.
_ERRORS = (grpc.RpcError, ValueError)
RECONNECT_MS = 5000  # so long the library waits at most before it connects again


class ActionBlobs(NamedTuple):
    """The action that stands for a record: its digest, and the contents that describe it."""

    digest: Digest
    contents: tuple[bytes, bytes]


class ApiClient:
    """The client of one server. Every method blocks, and may be called from any thread.

    Each takes the seconds that it may take, and raises StoreFailed.
    """

    def __init__(self, settings: SharedSettings) -> None:
        address = settings.address
        self._instance = address.instance
        self._metadata = settings.headers
        options = (
            ("grpc.max_reconnect_backoff_ms", RECONNECT_MS),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", BATCH_BYTES * 2),
        )
        if address.is_encrypted:
            credentials = grpc.ssl_channel_credentials(
                settings.authorities or None, settings.certificate_key or None, settings.certificate or None
            )
            self._channel = grpc.secure_channel(address.target, credentials, options)
        else:
            self._channel = grpc.insecure_channel(address.target, options)

    def close(self) -> None:
        """End the calls that are under way, and the connection."""
        self._channel.close()

    # -- records ------------------------------------------------------------------------------------------------------

    def get_records(self, names: Sequence[RecordName], timeout_s: float) -> Iterator[bytes | None]:
        """Yield the records of these names in their order, None for those that are missing."""
        asked: list[Any] = []
        try:
            asked += [self._begin(name, timeout_s) for name in names]
            for future in asked:
                yield self._record_of(future, timeout_s)
        finally:
            for future in asked:
                future.cancel()

    def put_record(self, name: RecordName, record: bytes, contents: Collection[Digest], timeout_s: float) -> None:
        """Store a record, whose contents the store has already."""
        action = action_of(name)
        inline = record if len(record) <= INLINE_RECORD_BYTES else b""
        own = {_digest_of(content): content for content in (*action.contents, b"", *([] if inline else [record]))}
        self.put_contents(own, lambda digest: iter((own[digest],)), timeout_s)
        files = [_message("OutputFile", path=digest.sha256.hex(), digest=_packed(digest)) for digest in contents]
        answer = _message("ActionResult", output_files=files, stdout_raw=inline)
        if not inline:
            answer.stdout_digest.CopyFrom(_packed(_digest_of(record)))
        request = _message(
            "UpdateActionResultRequest",
            instance_name=self._instance,
            action_digest=_packed(action.digest),
            action_result=answer,
        )
        self._ask(UPDATE_RESULT, request, timeout_s)

    def _begin(self, name: RecordName, timeout_s: float) -> Any:
        request = _message(
            "GetActionResultRequest",
            instance_name=self._instance,
            action_digest=_packed(action_of(name).digest),
            inline_stdout=True,
        )
        try:
            call = self._call(GET_RESULT, timeout_s)
            return call.future(request, timeout=timeout_s, metadata=self._metadata)
        except _ERRORS as error:
            raise _failure_of(error) from error

    def _record_of(self, future: Any, timeout_s: float) -> bytes | None:
        try:
            answer = future.result()
        except _ERRORS as error:
            failure = _failure_of(error)
            if failure.code == grpc.StatusCode.NOT_FOUND.name:
                return None
            raise failure from error
        if answer.stdout_raw or not answer.HasField("stdout_digest"):
            return bytes(answer.stdout_raw) or None
        digest = _unpacked(answer.stdout_digest)
        if not 0 < digest.size <= BATCH_BYTES:
            return None
        return next((content for _, content in self.get_contents([digest], timeout_s)), None)

    # -- contents -----------------------------------------------------------------------------------------------------

    def get_contents(self, digests: Iterable[Digest], timeout_s: float) -> Iterator[tuple[Digest, bytes]]:
        """Yield contents of at most BATCH_BYTES as the store sends them. Nobody has hashed them."""
        for batch in _batches(digests):
            request = _message(
                "BatchReadBlobsRequest", instance_name=self._instance, digests=[_packed(digest) for digest in batch]
            )
            for read in self._ask(READ_BLOBS, request, timeout_s).responses:
                if read.status.code == 0:
                    yield _unpacked(read.digest), bytes(read.data)

    def read_content(self, digest: Digest, timeout_s: float) -> Iterator[bytes]:
        """Yield a long content in pieces. Nobody has hashed it."""
        name = self._resource(f"blobs/{digest.sha256.hex()}/{digest.size}")
        call = self._call(READ_STREAM, timeout_s, is_stream_back=True)
        try:
            answers = call(_message("ReadRequest", resource_name=name), timeout=timeout_s, metadata=self._metadata)
            yield from (bytes(answer.data) for answer in answers)
        except _ERRORS as error:
            raise _failure_of(error) from error

    def put_contents(
        self, digests: Iterable[Digest], read: Callable[[Digest], Iterator[bytes]], timeout_s: float
    ) -> None:
        """Send the contents that the store lacks. `read` returns the pieces of one."""
        small: list[Digest] = []
        long: list[Digest] = []
        for digest in self._find_missing(digests, timeout_s):
            (small if digest.size <= PIECE_BYTES else long).append(digest)
        for batch in _batches(small):
            written = [_message("WrittenBlob", digest=_packed(one), data=b"".join(read(one))) for one in batch]
            request = _message("BatchUpdateBlobsRequest", instance_name=self._instance, requests=written)
            for updated in self._ask(UPDATE_BLOBS, request, timeout_s).responses:
                if updated.status.code != 0:
                    raise StoreFailed(f"STATUS_{updated.status.code}", updated.status.message[:200])
        for digest in long:
            self._send(digest, read(digest), timeout_s)

    def _find_missing(self, digests: Iterable[Digest], timeout_s: float) -> list[Digest]:
        """Return those of the digests that the store lacks.

        A store that could name others would get any content of ours whose digest it knows.
        """
        wanted = dict.fromkeys(digests)
        request = _message(
            "FindMissingBlobsRequest", instance_name=self._instance, blob_digests=[_packed(one) for one in wanted]
        )
        missing = set(map(_unpacked, self._ask(FIND_MISSING, request, timeout_s).missing_blob_digests))
        return [digest for digest in wanted if digest in missing]

    def _send(self, digest: Digest, pieces: Iterator[bytes], timeout_s: float) -> None:
        name = self._resource(f"uploads/{uuid4()}/blobs/{digest.sha256.hex()}/{digest.size}")

        def requests() -> Iterator[Any]:
            sent = 0
            for piece in pieces:
                is_last = sent + len(piece) >= digest.size
                yield _message("WriteRequest", resource_name=name, write_offset=sent, finish_write=is_last, data=piece)
                sent += len(piece)

        call = self._call(WRITE_STREAM, timeout_s, is_stream_out=True)
        try:
            call(requests(), timeout=timeout_s, metadata=self._metadata)
        except _ERRORS as error:
            raise _failure_of(error) from error

    # -- calls --------------------------------------------------------------------------------------------------------

    def _resource(self, name: str) -> str:
        return f"{self._instance}/{name}" if self._instance else name

    def _ask(self, method: ApiMethod, request: Any, timeout_s: float) -> Any:
        try:
            return self._call(method, timeout_s)(request, timeout=timeout_s, metadata=self._metadata)
        except _ERRORS as error:
            raise _failure_of(error) from error

    def _call(
        self, method: ApiMethod, timeout_s: float, *, is_stream_out: bool = False, is_stream_back: bool = False
    ) -> Any:
        kinds = {
            (False, False): self._channel.unary_unary,
            (True, False): self._channel.stream_unary,
            (False, True): self._channel.unary_stream,
        }
        if timeout_s <= 0:
            raise StoreFailed("DEADLINE_EXCEEDED")
        request, answer = MESSAGES[method.request], MESSAGES[method.answer]
        return kinds[is_stream_out, is_stream_back](method.path, request.SerializeToString, answer.FromString)


def action_of(name: RecordName) -> ActionBlobs:
    """Return the action that stands for a record. Its command has the kind and the digest only."""
    command = _message("Command", arguments=["termite-record", name.kind.value, name.digest.hex()])
    packed_command = command.SerializeToString(deterministic=True)
    action = _message(
        "Action", command_digest=_packed(_digest_of(packed_command)), input_root_digest=_packed(EMPTY)
    ).SerializeToString(deterministic=True)
    return ActionBlobs(_digest_of(action), (packed_command, action))


def _message(kind: str, **fields: object) -> Any:
    return MESSAGES[kind](**fields)


def _packed(digest: Digest) -> Any:
    return _message("Digest", hash=digest.sha256.hex(), size_bytes=digest.size)


def _unpacked(digest: Any) -> Digest:
    """Return a digest from the store. Raise StoreFailed if it is none."""
    try:
        sha256 = bytes.fromhex(digest.hash)
    except ValueError:
        sha256 = b""
    if len(sha256) != hashlib.sha256().digest_size or digest.size_bytes < 0:
        raise StoreFailed("INVALID_ANSWER", "a digest is none")
    return Digest(sha256, digest.size_bytes)


def _digest_of(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).digest(), len(content))


def _batches(digests: Iterable[Digest]) -> Iterator[list[Digest]]:
    """Yield the digests in groups that fit into one message."""
    batch: list[Digest] = []
    size = 0
    for digest in digests:
        if batch and (size + digest.size > BATCH_BYTES or len(batch) >= BATCH_BLOBS):
            yield batch
            batch, size = [], 0
        batch.append(digest)
        size += digest.size
    if batch:
        yield batch


def _failure_of(error: Exception) -> StoreFailed:
    code = error.code() if hasattr(error, "code") else None
    detail = error.details() if hasattr(error, "details") else ""
    return StoreFailed(code.name if code is not None else "UNKNOWN", (detail or "")[:200])
