"""Images wait at the front door while a model behind it is full, and only then."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from radstream.admission import Admission, most_pending

METRICS = """\
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{{model="radstream_ensemble",version="1"}} 70
nv_inference_pending_request_count{{model="radstream_preprocess",version="1"}} 64
nv_inference_pending_request_count{{model="radstream_detector",version="1"}} {detector}
nv_inference_pending_request_count{{model="radstream_encoder",version="1"}} 3
"""


def test_only_models_behind_preprocessing_count() -> None:
    assert most_pending(METRICS.format(detector=9)) == 9
    assert most_pending("") == 0


@contextmanager
def serving(pending: list[int]) -> Iterator[str]:
    """Metrics of a server whose detector has each of these queues in turn, the last one for good."""

    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = METRICS.format(detector=pending.pop(0) if len(pending) > 1 else pending[0]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Metrics) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/metrics"
        finally:
            server.shutdown()
            thread.join()


def test_a_full_model_holds_images_back_until_it_has_room() -> None:
    pending = [40, 30, 17, 16]
    with serving(pending) as url:
        Admission(url, limit=16, answer_s=60).wait()
    assert pending == [16]


def test_a_server_that_is_still_starting_has_room() -> None:
    Admission("http://127.0.0.1:1/metrics", limit=0).wait()


def test_metrics_that_do_not_answer_hold_nothing_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        Admission(f"http://127.0.0.1:{silent.getsockname()[1]}/metrics", limit=0, answer_s=0.1).wait()
