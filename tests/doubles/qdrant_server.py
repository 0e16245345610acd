"""A Qdrant server on 127.0.0.1, as far as reading goes: its REST paths over qdrant-client's own store, and faults.

Filters are decided by the client's local mode, so that what travels is what a server gets and what comes back is what
Qdrant says; only HTTP, paging on the wire and failures are of this file.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from qdrant_client import QdrantClient, models


class QdrantServer:
    """Serves one collection."""

    def __init__(self, collection: str, points: list[models.PointStruct], key: str = "") -> None:
        self.collection, self.key = collection, key
        self.store = QdrantClient(":memory:")
        self.store.create_collection(
            collection, vectors_config=models.VectorParams(size=2, distance=models.Distance.DOT)
        )
        self.store.upsert(collection, points)
        self.offsets: list[Any] = []
        """Where each page that was asked for begins, refused ones included."""
        self.faults: deque[int] = deque()
        """What the next pages are answered with instead: a status, or 0 for a connection that breaks off; 200: none."""
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.address = f"qdrant://127.0.0.1:{self._http.server_port}#{collection}"

    @contextmanager
    def running(self) -> Iterator[QdrantServer]:
        thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            thread.join()
            self._http.server_close()
            self.store.close()

    def answer(self, path: str, asked: dict[str, Any]) -> tuple[int, Any]:
        """Status and result of a request."""
        with self._lock:
            if path == "/collections":
                return 200, {"collections": [{"name": self.collection}]}
            where = models.Filter(**asked["filter"]) if asked.get("filter") else None
            if path == f"/collections/{self.collection}/points/count":
                return 200, {"count": self.store.count(self.collection, count_filter=where).count}
            if path != f"/collections/{self.collection}/points/scroll":
                return 404, None
            if asked["limit"] > 1:  # not the look at what fields there are
                self.offsets.append(asked.get("offset"))
                if self.faults and (status := self.faults.popleft()) != 200:
                    return status, None
            found, following = self.store.scroll(
                self.collection, scroll_filter=where, limit=asked["limit"], offset=asked.get("offset"),
                with_payload=True, with_vectors=False,
            )  # fmt: skip
            points = [{"id": one.id, "payload": one.payload} for one in found]
            return 200, {"points": points, "next_page_offset": following}


def _handler(server: QdrantServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply({})

        def do_POST(self) -> None:
            self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _reply(self, asked: dict[str, Any]) -> None:
            if server.key and self.headers.get("api-key") != server.key:
                status, result = 401, None
            else:
                status, result = server.answer(self.path.partition("?")[0], asked)
            if status == 0:
                self.close_connection = True
                return
            body = json.dumps({"result": result, "status": "ok", "time": 0.001}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    return Handler
