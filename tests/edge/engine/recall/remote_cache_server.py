"""A server of the Remote Execution API as far as a shared store needs it, with faults to order.

The server checks what real servers check: digests of contents, and that the contents of a result
are there.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

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

PIECE_BYTES = 64 * 1024


class RemoteCacheServer:
    """The server. `answers` is cleared while it is slow, and `refuses` makes all uploads fail."""

    def __init__(self, instance: str = "", headers: dict[str, str] | None = None) -> None:
        self.instance, self.headers = instance, headers or {}
        self.blobs: dict[str, bytes] = {}
        self.results: dict[str, Any] = {}
        self.calls: list[str] = []
        self.answers = threading.Event()
        self.answers.set()
        self.refuses = False
        self._server: Any = None
        self.port = 0

    def start(self, credentials: Any = None) -> None:
        self._server = grpc.server(ThreadPoolExecutor(8), options=(("grpc.so_reuseport", 0),))
        handlers: dict[str, dict[str, Any]] = {}
        for method, handler in self._handlers().items():
            _, service, name = method.path.split("/")
            handlers.setdefault(service, {})[name] = handler
        for service, methods in handlers.items():
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
        address = f"127.0.0.1:{self.port}"
        if credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, credentials)
        self._server.start()

    def stop(self) -> None:
        """Be gone, as a server that was killed."""
        self.answers.set()
        self._server.stop(None).wait()

    def _handlers(self) -> dict[ApiMethod, Any]:
        kinds: dict[ApiMethod, tuple[Callable[..., Any], Callable[..., Any]]] = {
            GET_RESULT: (grpc.unary_unary_rpc_method_handler, self._get),
            UPDATE_RESULT: (grpc.unary_unary_rpc_method_handler, self._update),
            FIND_MISSING: (grpc.unary_unary_rpc_method_handler, self._find_missing),
            UPDATE_BLOBS: (grpc.unary_unary_rpc_method_handler, self._update_blobs),
            READ_BLOBS: (grpc.unary_unary_rpc_method_handler, self._read_blobs),
            READ_STREAM: (grpc.unary_stream_rpc_method_handler, self._read_stream),
            WRITE_STREAM: (grpc.stream_unary_rpc_method_handler, self._write_stream),
        }
        return {
            method: make(self._noted(method, serve), MESSAGES[method.request].FromString, _packed)
            for method, (make, serve) in kinds.items()
        }

    def _noted(self, method: ApiMethod, serve: Callable[..., Any]) -> Callable[..., Any]:
        def noted(request: Any, context: Any) -> Any:
            self.calls.append(method.path.rpartition("/")[2])
            self.answers.wait(30)
            sent = dict(context.invocation_metadata())
            if any(sent.get(name) != text for name, text in self.headers.items()):
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
            is_upload = method in (UPDATE_RESULT, UPDATE_BLOBS, WRITE_STREAM)
            if self.refuses and is_upload:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "read only")
            if hasattr(request, "instance_name") and request.instance_name != self.instance:
                context.abort(grpc.StatusCode.NOT_FOUND, "no such instance")
            return serve(request, context)

        return noted

    def _get(self, request: Any, context: Any) -> Any:
        found = self.results.get(request.action_digest.hash)
        if found is None or any(file.digest.hash not in self.blobs for file in found.output_files):
            context.abort(grpc.StatusCode.NOT_FOUND, "no result")
        return found

    def _update(self, request: Any, context: Any) -> Any:
        action = MESSAGES["Action"].FromString(self.blobs[request.action_digest.hash])
        assert action.command_digest.hash in self.blobs
        self.results[request.action_digest.hash] = request.action_result
        return request.action_result

    def _find_missing(self, request: Any, context: Any) -> Any:
        missing = [one for one in request.blob_digests if one.hash not in self.blobs]
        return MESSAGES["FindMissingBlobsResponse"](missing_blob_digests=missing)

    def _update_blobs(self, request: Any, context: Any) -> Any:
        responses = []
        for one in request.requests:
            is_right = (
                hashlib.sha256(one.data).hexdigest() == one.digest.hash and len(one.data) == one.digest.size_bytes
            )
            if is_right:
                self.blobs[one.digest.hash] = one.data
            responses.append(MESSAGES["UpdatedBlob"](digest=one.digest, status={"code": 0 if is_right else 3}))
        return MESSAGES["BatchUpdateBlobsResponse"](responses=responses)

    def _read_blobs(self, request: Any, context: Any) -> Any:
        responses = [
            MESSAGES["ReadBlob"](
                digest=one, data=self.blobs.get(one.hash, b""), status={"code": 0 if one.hash in self.blobs else 5}
            )
            for one in request.digests
        ]
        return MESSAGES["BatchReadBlobsResponse"](responses=responses)

    def _read_stream(self, request: Any, context: Any) -> Iterator[Any]:
        content = self.blobs.get(request.resource_name.split("/")[-2])
        if content is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no blob")
            return
        for at in range(0, len(content), PIECE_BYTES):
            yield MESSAGES["ReadResponse"](data=content[at : at + PIECE_BYTES])

    def _write_stream(self, requests: Iterator[Any], context: Any) -> Any:
        name, content, is_whole = "", b"", False
        for request in requests:
            name = name or request.resource_name
            assert request.write_offset == len(content)
            content += request.data
            is_whole = request.finish_write
        digest = name.split("/")[-2]
        assert is_whole and hashlib.sha256(content).hexdigest() == digest
        self.blobs[digest] = content
        return MESSAGES["WriteResponse"](committed_size=len(content))


def _packed(message: Any) -> bytes:
    return bytes(message.SerializeToString())


@contextmanager
def remote_cache(instance: str = "", headers: dict[str, str] | None = None) -> Iterator[RemoteCacheServer]:
    server = RemoteCacheServer(instance, headers)
    server.start()
    try:
        yield server
    finally:
        server.stop()
