"""Programs that a service starts while its gRPC threads are busy: each of them comes up."""

from __future__ import annotations

import os
import subprocess
import sys

SCRIPT = """
import asyncio
from services.common.exec.program import run_program
import grpc, uvloop

async def echo(request, context):
    return request

async def ask(call):
    while True:
        await call(b"x" * 1000)

async def main():
    server = grpc.aio.server()
    methods = {"C": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("a.B", methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        asking = [asyncio.ensure_future(ask(channel.unary_unary("/a.B/C"))) for _ in range(4)]
        found = [(await run_program(["true"], check=False)).status for _ in range(200)]
        for task in asking:
            task.cancel()
    await server.stop(None)
    print(sum(status != 0 for status in found))

uvloop.run(main())
"""


def test_no_child_of_a_busy_service_crashes() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_ENABLE_FORK_SUPPORT"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr[-2000:]
