"""A Docker daemon as far as it goes without containers: what it runs on, an image, a container that does not start.

with docker_api({"OSType": "linux", "Architecture": "x86_64"}) as docker:
    ...                 # with DOCKER_HOST=docker.host
    docker.created      # what was asked of each container
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

REFUSAL = "privileged mode is not allowed"


@dataclass
class DockerApi:
    host: str
    created: list[dict[str, Any]] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


@contextmanager
def docker_api(information: Mapping[str, str]) -> Iterator[DockerApi]:
    """Serve on loopback."""

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            match self._words():
                case [*_, "version"]:
                    self._answer(200, {"ApiVersion": "1.47", "Version": "28"})
                case [*_, "info"]:
                    self._answer(200, information)
                case [*_, "networks"]:
                    self._answer(200, [])
                case [*_, "images" | "containers", _, "json"] | [*_, "images", _, _, "json"]:
                    self._answer(200, {"Id": "sha256:abc", "Name": "/abc"})
                case words:
                    self._answer(404, {"message": f"nothing at {'/'.join(words)}"})

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self._words()[-1] == "create":
                docker.created.append(json.loads(content))
                self._answer(201, {"Id": "abc"})
            else:
                self._answer(500, {"message": REFUSAL})

        def do_DELETE(self) -> None:
            docker.removed.append(self._words()[-1])
            self._answer(204, None)

        def _words(self) -> list[str]:
            return urlsplit(self.path).path.split("/")

        def _answer(self, code: int, document: object) -> None:
            body = b"" if document is None else json.dumps(document).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        docker = DockerApi(f"tcp://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield docker
        finally:
            server.shutdown()
            thread.join()
