"""A bucket on loopback that speaks the part of the XML API that S3 and Google share, and can be told to fail.

Conditional puts are atomic, as the clouds promise: `If-None-Match: *` (S3), `x-goog-if-generation-match: 0` (Google).
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class Request(NamedTuple):
    """One request, before it is answered."""

    number: int
    method: str
    key: str
    size: int
    """Bytes of its body."""


class Fault(NamedTuple):
    """What to do instead of answering."""

    kind: str
    """`status`, `hang`, `cut` (close after `amount` bytes of the body were read), `deaf` (do it, and close without an
    answer), `short` (send `amount` bytes of the answer's body, and close), `flip` (one bit of the answer's body)."""
    amount: float = 0


class BucketServer:
    """A server with one bucket; a context manager. `fault` is asked before each request."""

    def __init__(self, fault: Callable[[Request], Fault | None] | None = None) -> None:
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.fault = fault
        self.requests: list[Request] = []
        self.lock = threading.Lock()
        self.server = _Server(("127.0.0.1", 0), _Handler)
        self.server.daemon_threads = True
        self.server.bucket = self
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def environ(self) -> dict[str, str]:
        """Environment variables with which clients come here, for both kinds of address."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "STORAGE_EMULATOR_HOST": self.endpoint,
        }

    def __enter__(self) -> BucketServer:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class _Server(ThreadingHTTPServer):
    bucket: BucketServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what we are here for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def log_message(self, *_: Any) -> None:
        pass

    def _handle(self) -> None:
        bucket = self.server.bucket
        split = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(split.query, keep_blank_values=True).items()}
        key = unquote(split.path).lstrip("/").partition("/")[2]
        size = int(self.headers.get("Content-Length") or 0)
        with bucket.lock:
            request = Request(len(bucket.requests), self.command, key, size)
            bucket.requests.append(request)
        fault = bucket.fault(request) if bucket.fault is not None else None
        if fault is not None and fault.kind == "cut":
            self.rfile.read(min(size, int(fault.amount)))
            return self._close()
        body = self.rfile.read(size)
        if "aws-chunked" in self.headers.get("Content-Encoding", ""):
            raise AssertionError("chunked bodies are not understood here")
        if fault is not None and fault.kind == "hang":
            time.sleep(fault.amount)
            return self._close()
        if fault is not None and fault.kind == "status":
            code = {503: "SlowDown", 403: "AccessDenied", 429: "TooManyRequests"}.get(
                int(fault.amount), "InternalError"
            )
            return self._answer(int(fault.amount), f"<Error><Code>{code}</Code></Error>".encode())
        with bucket.lock:
            status, answer, headers = self._do(bucket, key, query, body)
        if fault is not None and fault.kind == "deaf":
            return self._close()
        if fault is not None and fault.kind == "flip" and answer:
            answer = bytes([answer[0] ^ 1]) + answer[1:]
        short = int(fault.amount) if fault is not None and fault.kind == "short" else None
        self._answer(status, answer, headers, short)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle

    def _do(
        self, bucket: BucketServer, key: str, query: dict[str, str], body: bytes
    ) -> tuple[int, bytes, dict[str, str]]:
        objects = bucket.objects
        if self.command == "PUT" and "uploadId" in query:
            bucket.parts[query["uploadId"]][int(query["partNumber"])] = body
            return 200, b"", {"ETag": _tag(body)}
        if self.command == "PUT":
            new = self.headers.get("If-None-Match") == "*" or self.headers.get("x-goog-if-generation-match") == "0"
            if new and key in objects:
                return 412, b"<Error><Code>PreconditionFailed</Code></Error>", {}
            objects[key] = body
            return 200, b"", {"ETag": _tag(body), "x-goog-generation": "1"}
        if self.command == "POST" and "uploads" in query:
            name = f"upload-{len(bucket.parts)}"
            bucket.parts[name] = {}
            xml = f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
            return 200, xml.encode(), {}
        if self.command == "POST" and "uploadId" in query:
            parts = bucket.parts.pop(query["uploadId"], None)
            if parts is None:
                return 404, b"<Error><Code>NoSuchUpload</Code></Error>", {}
            objects[key] = b"".join(parts[number] for number in sorted(parts))
            tag = _tag(objects[key])
            xml = f"<CompleteMultipartUploadResult><ETag>{escape(tag)}</ETag></CompleteMultipartUploadResult>"
            return 200, xml.encode(), {"x-goog-generation": "1"}
        if self.command == "POST" and "delete" in query:
            for name in re.findall(rb"<Key>([^<]*)</Key>", body):
                objects.pop(name.decode(), None)
            return 200, b"<DeleteResult></DeleteResult>", {}
        if self.command == "DELETE":
            if "uploadId" in query:
                bucket.parts.pop(query["uploadId"], None)
            else:
                objects.pop(key, None)
            return 204, b"", {}
        if self.command in ("GET", "HEAD") and not key:
            return 200, _listing(objects, query.get("prefix", "")), {"Content-Type": "application/xml"}
        if key not in objects:
            return 404, b"<Error><Code>NoSuchKey</Code></Error>", {}
        content = objects[key]
        headers = {"ETag": _tag(content), "Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT", "x-goog-generation": "1"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted and self.command == "GET":
            start, stop = int(wanted[1]), min(int(wanted[2]), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{stop}/{len(content)}"
            return 206, content[start : stop + 1], headers
        return 200, content, headers

    def _answer(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, short: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)) if status != 204 else "0")
        self.end_headers()
        if self.command == "HEAD":
            self.wfile.flush()
            return
        self.wfile.write(body if short is None else body[:short])
        self.wfile.flush()
        if short is not None:
            self._close()

    def _close(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def _tag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


def _listing(objects: dict[str, bytes], prefix: str) -> bytes:
    found = "".join(
        f"<Contents><Key>{escape(key)}</Key><Size>{len(objects[key])}</Size>"
        f"<LastModified>2025-01-01T00:00:00.000Z</LastModified><ETag>x</ETag></Contents>"
        for key in sorted(objects)
        if key.startswith(prefix)
    )
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>".encode()


def main() -> None:
    """A server in a process of its own: prints its address, and is `away` or `back` as its input says."""
    with BucketServer() as server:
        print(server.endpoint, flush=True)
        for line in sys.stdin:
            away = line.strip() == "away"
            server.fault = (
                (lambda request: Fault("hang", 1.0) if request.number % 3 else Fault("status", 503)) if away else None
            )


if __name__ == "__main__":
    main()
