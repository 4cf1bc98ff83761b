"""What figures are held against, measured in the same run: bare etcd puts, a bare gRPC echo, a folder's fsync."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from moln.etcd.v1 import etcd_pb2 as pb
from services.common.store import StoreSettings, server
from services.common.store.etcd.client import EtcdClient

VALUE_BYTES = 200
_SIZE = [
    ("grpc.max_receive_message_length", 512 << 20),
    ("grpc.max_send_message_length", 512 << 20),
    ("grpc.so_reuseport", 0),
]


@asynccontextmanager
async def bare_etcd() -> AsyncIterator[EtcdClient]:
    """An etcd with nothing in it, on the same disk and with the same flags as a stack's, and our client to it."""
    with tempfile.TemporaryDirectory(prefix="moln-bench-etcd-") as name:
        folder = Path(name)
        process = await asyncio.create_subprocess_exec(
            *server.command(folder), cwd=folder, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        client = await EtcdClient.connect(StoreSettings(endpoints=(server.endpoint(folder),)))
        try:
            await _until_up(client)
            yield client
        finally:
            await client.close()
            process.kill()
            await process.wait()


async def _until_up(client: EtcdClient) -> None:
    for _ in range(100):
        try:
            await client.status(b"", timeout=1.0)
        except Exception:  # noqa: BLE001  whatever keeps it from answering yet
            await asyncio.sleep(0.1)
        else:
            return
    raise SystemExit("bench: etcd does not answer")


def _put(number: int) -> bytes:
    operation = pb.RequestOp(request_put=pb.PutRequest(key=f"/bench/{number:010d}".encode(), value=b"x" * VALUE_BYTES))
    return pb.TxnRequest(success=[operation]).SerializeToString()


async def puts_per_second(in_flight: int, seconds: float) -> float:
    """Single puts of 200 bytes per second, as transactions through our client, this many at a time."""
    async with bare_etcd() as client:
        deadline, done = time.perf_counter() + seconds, 0

        async def put() -> None:
            nonlocal done
            while time.perf_counter() < deadline:
                done += 1
                await client.txn(_put(done))

        began = time.perf_counter()
        await asyncio.gather(*(put() for _ in range(in_flight)))
        return done / (time.perf_counter() - began)


async def put_seconds(count: int = 200) -> float:
    """Median time of one put, one after the other."""
    async with bare_etcd() as client:
        times = []
        for number in range(count):
            began = time.perf_counter()
            await client.txn(_put(number))
            times.append(time.perf_counter() - began)
        return statistics.median(times)


async def echo_seconds(size: int, repeats: int = 5) -> float:
    """Median time in which a bare gRPC server of Python, a process of its own, answers with so many bytes."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.peers", str(size), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        port = int((await process.stdout.readline()).decode())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=_SIZE) as channel:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/bench.Echo/Echo")
            await call(b"")
            times = []
            for _ in range(repeats):
                began = time.perf_counter()
                answer = await call(b"")
                times.append(time.perf_counter() - began)
                assert len(answer) == size
            return statistics.median(times)
    finally:
        process.kill()
        await process.wait()


async def _serve(size: int) -> None:
    answer = b"x" * size

    async def echo(_request: bytes, _context: object) -> bytes:
        return answer

    peer = grpc.aio.server(options=_SIZE)
    handlers: dict[str, Any] = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    peer.add_registered_method_handlers("bench.Echo", handlers)
    port = peer.add_insecure_port("127.0.0.1:0")
    await peer.start()
    print(port, flush=True)
    await peer.wait_for_termination()


def fsync_seconds(folder: Path, count: int = 30) -> float:
    """Median time of writing 4 KiB and syncing them in a folder."""
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(count):
            began = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times)


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve(int(sys.argv[1])))
