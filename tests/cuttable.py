"""A wire between two programs that a test can cut: nothing arrives any more, and neither end is told."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import Self


class CuttableWire:
    """Forwards what comes to an address of its own, and what is answered. While it is cut it takes everything and passes nothing on.

    What was taken then is lost: who had a connection has to make another one, as after a cut that is longer than the ends wait.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._whole = threading.Event()
        self._whole.set()
        self._serving: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cuttable-wire")

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._accept, "127.0.0.1", 0), self._loop).result(60.0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(60.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Pass nothing on from now on."""
        self._whole.clear()

    def heal(self) -> None:
        """Pass on what comes from now on, over new connections."""
        self._whole.set()

    async def _stop(self) -> None:
        for listening in self._server.sockets:
            self._loop.remove_reader(listening.fileno())
        while others := asyncio.all_tasks() - {asyncio.current_task()}:  # those included that take a connection only now
            self._abort()
            await asyncio.wait(others, timeout=0.01)
        self._server.close()  # not before: a connection that is being taken would be left open
        self._abort()  # what was closed with something still to be sent
        await asyncio.sleep(0.0)

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self._serving.add(self._loop.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            if not self._whole.is_set():
                await self._swallow(reader)
                return
            there, answering = await asyncio.open_connection(*self._target)
            self._writers.add(answering)
            with contextlib.closing(answering):
                ways = [asyncio.ensure_future(self._pass_on(*way)) for way in ((reader, answering), (there, writer))]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            writer.close()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if not self._whole.is_set():
                await self._swallow(reader)
                return
            writer.write(data)
            await writer.drain()

    @staticmethod
    async def _swallow(reader: asyncio.StreamReader) -> None:
        while await reader.read(65_536):
            pass
