"""A gRPC server whose answer takes as long as the request says: ``python -m benchmarks.sleepy_server``."""

from __future__ import annotations

import asyncio
import sys

import grpc

from loadtests.infer import INFER_METHOD


async def _sleep(request: bytes, _context: object) -> bytes:
    await asyncio.sleep(float(request))
    return b"awake"


async def main() -> None:
    server = grpc.aio.server()
    service, method = INFER_METHOD.strip("/").split("/")
    handlers = {method: grpc.unary_unary_rpc_method_handler(_sleep)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main())
