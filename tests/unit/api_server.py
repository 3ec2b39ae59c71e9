"""An API server as far as one who follows pods can tell: it lists and watches over real HTTP, with faults as asked.

    with api_server(tmp_path, [pod("a")]) as api:
        api.send("ADDED", pod("b"))          # to whoever watches
        api.send("MODIFIED", pod("b", phase="Failed"))
        api.end_watch()                      # in good order, as after its timeout
        api.cut_watch()                      # within a line
        api.refusal = (403, "pods is forbidden")
        api.metrics["a:8002"] = "..."        # what it fetches from a port of a pod

``api.kubernetes`` is the section of a target that leads here, ``api.asked`` the queries so far.
"""

from __future__ import annotations

import itertools
import json
import queue
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from loadtests.target import Kubernetes

Document = dict[str, Any]
_END: Final = b"end"
_CUT: Final = b"cut"
_HANG_S: Final = 30.0


def pod(name: str, *, uid: str = "", phase: str = "Running", address: str | None = "10.0.0.1") -> Document:
    """A pod as the API writes it, shortened to what is not the same for every pod."""
    status = {"phase": phase, "podIP": address} if address else {"phase": phase}
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": name, "uid": uid or f"uid-of-{name}", "labels": {"app.kubernetes.io/name": "triton"}},
        "status": status,
    }


@dataclass
class ApiServer:
    """What it knows, what it shall do, and what it was asked."""

    kubernetes: Kubernetes
    port: int
    pods: list[Document]
    refusal: tuple[int, str] | None = None
    page_pods: int = 500
    metrics: dict[str, str] = field(default_factory=dict)
    may_list: threading.Event = field(default_factory=threading.Event)
    asked: list[dict[str, str]] = field(default_factory=list)
    _streams: list[queue.Queue[bytes]] = field(default_factory=list)
    _versions: Iterator[int] = field(default_factory=lambda: itertools.count(101))

    def send(self, kind: str, document: Document) -> str:
        """An event for whoever watches; returns its place in history."""
        version = str(next(self._versions))
        metadata = document.get("metadata", {}) | {"resourceVersion": version}
        self.send_line(json.dumps({"type": kind, "object": document | {"metadata": metadata}}))
        return version

    def send_line(self, line: str) -> None:
        self._streams[-1].put(line.encode() + b"\n")

    def send_gone(self) -> None:
        """What a watch is told whose place in history is forgotten."""
        gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
        self.send_line(json.dumps({"type": "ERROR", "object": gone}))

    def open_stream(self) -> queue.Queue[bytes]:
        """What is sent from now on goes to a new watch."""
        self._streams.append(queue.Queue())
        return self._streams[-1]

    def end_watch(self) -> None:
        self._streams[-1].put(_END)

    def end_watch_within_a_line(self) -> None:
        self._streams[-1].put(b'{"type":"ADDED","obj')
        self.end_watch()

    def cut_watch(self) -> None:
        self._streams[-1].put(_CUT)

    @property
    def lists(self) -> list[dict[str, str]]:
        return [query for query in self.asked if "watch" not in query]

    @property
    def watches(self) -> list[dict[str, str]]:
        return [query for query in self.asked if "watch" in query]


@contextmanager
def api_server(directory: Path, pods: list[Document]) -> Iterator[ApiServer]:
    """Serve on loopback; a kubeconfig that leads there is written to the directory."""

    class Api(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle(self) -> None:
            with suppress(ConnectionError):  # a client may leave at any time
                super().handle()

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = dict(parse_qsl(url.query)) | {"path": url.path}
            api.asked.append(query)
            if api.refusal is not None:
                code, message = api.refusal
                self._answer(code, {"kind": "Status", "code": code, "message": message})
            elif proxied := re.fullmatch(r".*/pods/([^/]+)/proxy/metrics", unquote(url.path)):
                self._fetch(proxied[1])
            elif "watch" in query:
                self._watch()
            else:
                api.may_list.wait(_HANG_S)
                self._list(int(query.get("continue", "0")))

        def _list(self, start: int) -> None:
            end = start + api.page_pods
            metadata = {"resourceVersion": "100"} | ({"continue": str(end)} if end < len(api.pods) else {})
            self._answer(200, {"kind": "PodList", "metadata": metadata, "items": api.pods[start:end]})

        def _fetch(self, pod_and_port: str) -> None:
            text = api.metrics.get(pod_and_port)
            if self.headers["Authorization"] != "Bearer secret-token":
                self._answer(401, {"kind": "Status", "code": 401, "message": "Unauthorized"})
            elif text is None:
                self._answer(503, {"kind": "Status", "code": 503, "message": f"no answer from {pod_and_port}"})
            else:
                self._send(200, text.encode(), "text/plain")

        def _answer(self, code: int, document: Document) -> None:
            self._send(code, json.dumps(document).encode(), "application/json")

        def _send(self, code: int, body: bytes, media_type: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _watch(self) -> None:
            to_send = api.open_stream()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.flush()
            while (piece := to_send.get()) not in {_END, _CUT}:
                self._chunk(piece)
            if piece == _CUT:
                self._chunk(b'{"type":"ADDED","obj')
                self.close_connection = True
            else:
                self._chunk(b"")

        def _chunk(self, piece: bytes) -> None:
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            self.wfile.flush()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        server.daemon_threads = True
        file = directory / "kubeconfig"
        file.write_text(kubeconfig(f"http://127.0.0.1:{server.server_port}"))
        api = ApiServer(Kubernetes(kubeconfig=file), server.server_port, pods)
        api.may_list.set()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield api
        finally:
            api.may_list.set()
            for stream in api._streams:
                stream.put(_CUT)
            server.shutdown()
            thread.join()


def kubeconfig(server: str) -> str:
    """A kubeconfig with one context, which leads there."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "loopback", "cluster": {"server": server}}],
        "users": [{"name": "nobody", "user": {"token": "secret-token"}}],
        "contexts": [{"name": "here", "context": {"cluster": "loopback", "user": "nobody"}}],
    }
    return json.dumps(document)  # which is YAML, too
