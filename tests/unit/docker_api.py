"""A Docker daemon as far as its preflight can tell: it answers what version it is and what it runs on."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@contextmanager
def docker_api(information: Mapping[str, str]) -> Iterator[str]:
    """Serve on loopback; yields what DOCKER_HOST has to be."""

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            version = {"ApiVersion": "1.47", "Version": "28"}
            answers = {"version": version, "info": information, "networks": []}
            body = json.dumps(answers[urlsplit(self.path).path.rpartition("/")[2]]).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
