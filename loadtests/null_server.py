"""A gRPC server that answers every inference at once with the same small message: what is left is the client's cost.

``python -m loadtests.null_server`` prints its address and ends when its standard input closes.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from loadtests.messages import CLASSES, FEATURES, MODEL, OUTPUT_TYPES, SERVED_BY

_BOXES = 4


def answer() -> bytes:
    """A whole study's answer, good for every kind of request."""
    shapes = {"predictions": [CLASSES], "confidence": [1], "boxes": [_BOXES, 4], "scores": [_BOXES], "labels": [_BOXES]}
    response = service_pb2.ModelInferResponse(model_name=MODEL)
    for name, datatype in OUTPUT_TYPES.items():
        shape = shapes.get(name, [FEATURES])
        value = 1 / CLASSES if name == "predictions" else 0
        tensor = np.full(shape, value, np.int32 if datatype == "INT32" else np.float32)
        response.outputs.add(name=name, datatype=datatype, shape=[1, *shape])
        response.raw_output_contents.append(tensor.tobytes())
    response.outputs.add(name=SERVED_BY, datatype="BYTES", shape=[1, 1])
    response.raw_output_contents.append(b"\x04\0\0\0null")
    serialised: bytes = response.SerializeToString()
    return serialised


class _AnswerAll(grpc.GenericRpcHandler):
    def __init__(self) -> None:
        body = answer()
        self._handler = grpc.unary_unary_rpc_method_handler(lambda _request, _context: body)

    def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return self._handler


def main() -> None:
    server = grpc.server(
        ThreadPoolExecutor(max_workers=4),
        handlers=[_AnswerAll()],
        options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)],
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)  # noqa: T201 - the one line its parent waits for
    sys.stdin.read()
    server.stop(None)


if __name__ == "__main__":
    main()
