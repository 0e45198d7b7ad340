"""The transport's floor: a bidirectional stream that sends each message straight back, server and callers in two processes.

No decoding, no state, no net: what this reaches on a machine is the most any message-by-message service over gRPC can reach there.
Run as `python -m benchmarks.speed.echo` it is the server; `running` starts that and calls it.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import grpc

from benchmarks.speed.case import Floor
from benchmarks.windows import Figures, Window
from tests.ports import DIRECT

SERVICE = "floor.Echo"
STEP_BYTES = 120  # about one step: handle, number, flags, reward, ten floats and their framing
WARM_UP_S = 0.5


async def _echo(messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
    async for message in messages:
        yield message


async def _serve() -> None:
    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(_echo, request_deserializer=bytes, response_serializer=bytes)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Stream": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await server.wait_for_termination()


async def _call(port: int, floor: Floor, seconds: float) -> float:
    """Return messages per second of callers that each wait for one answer before they send the next message."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", DIRECT) as channel:
        method = channel.stream_stream(f"/{SERVICE}/Stream", request_serializer=bytes, response_deserializer=bytes)
        payload = bytes(STEP_BYTES * floor.steps_per_message)
        begin = time.perf_counter() + WARM_UP_S
        end = begin + seconds

        async def caller() -> int:
            stream = method(None)
            counted = 0
            while (now := time.perf_counter()) < end:
                await stream.write(payload)
                await stream.read()
                counted += now >= begin
            await stream.done_writing()
            return counted

        return sum(await asyncio.gather(*(caller() for _ in range(floor.callers)))) / seconds


@contextmanager
def running(floor: Floor) -> Iterator[Window]:
    """Start an echo server in a process of its own; each window is of callers in this process."""
    with subprocess.Popen([sys.executable, "-m", "benchmarks.speed.echo"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            port = int(server.stdout.readline())

            def window(seconds: float) -> Figures:
                messages_per_s = asyncio.run(_call(port, floor, seconds))
                return {"messages_per_s": messages_per_s, "steps_per_s": messages_per_s * floor.steps_per_message}

            yield window
        finally:
            server.terminate()


if __name__ == "__main__":
    asyncio.run(_serve())
