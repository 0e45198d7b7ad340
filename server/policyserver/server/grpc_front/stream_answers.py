"""The answers of one stream on their way to its client, and how much the server holds for it meanwhile.

The stream of a client that sends faster than it is answered, or does not take its answers, is not read until there is room: such a client
slows only itself. The server holds for a stream the rows that wait for an answer and the answers that wait to be taken.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc

from policyserver.common.errors import PolicyServerError, to_row_error
from policyserver.server.episodes.received_rows import Replies
from policyserver.server.grpc_front import messages as wire
from policyserver.v1 import policy_service_pb2 as pb

_MOST_MESSAGES = 64
_REFUSAL_BYTES = 1024  # about what a refused row takes until its answer is written
_REFUSALS_PER_TURN = 128  # encoded in one turn of the loop


class StreamAnswers:
    """Write answers in the order in which they are ready. Owned by the loop thread."""

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any], most_bytes: int) -> None:
        """Prepare; nothing is written before `write`. The stream has no room while `most_bytes` are held for it."""
        self._context = context
        self._most_bytes = most_bytes
        self._messages = 0
        self._bytes = 0
        self._ready: deque[tuple[int, Replies | pb.StepResponse, int | None]] = deque()
        """Answers with the number of their message, and their bytes; None for what answers no message."""
        self._news: pb.StepResponse | None = None
        """What is told of the server and not written yet; the newest takes the place of what is there."""
        self._is_ready = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_ended = False

    @property
    def is_full(self) -> bool:
        """Whether so much is held for the stream that it should not be read."""
        return self._messages >= _MOST_MESSAGES or self._bytes >= self._most_bytes

    async def room(self) -> None:
        """Wait until the stream may be read."""
        while self.is_full:
            self._has_room.clear()
            await self._has_room.wait()

    def expect(self, message_id: int, size: int) -> Callable[[Replies], None]:
        """Note a message that was read, of so many bytes; call what this returns with the replies to its rows."""
        self._messages += 1
        self._bytes += size

        def answer(replies: Replies) -> None:
            self._bytes -= size
            self._put(message_id, replies, replies.size_bytes + _REFUSAL_BYTES * len(replies.refusals))

        return answer

    def refuse(self, response: pb.StepResponse) -> None:
        """Answer a message that could not be read."""
        self._messages += 1
        self._put(response.batch.message_id, response, response.ByteSize())

    def say(self, response: pb.StepResponse) -> None:
        """Tell the client something small that answers no message."""
        self._put(0, response, None)

    def tell(self, response: pb.StepResponse) -> None:
        """Tell the client something that answers no message and makes what was told before out of date."""
        self._news = response
        self._is_ready.set()

    def _put(self, message_id: int, answer: Replies | pb.StepResponse, size: int | None) -> None:
        self._bytes += size or 0
        self._ready.append((message_id, answer, size))
        self._is_ready.set()

    def end(self) -> None:
        """Let `write` return once what is ready is written."""
        self._has_ended = True
        self._is_ready.set()

    async def write(self) -> None:
        """Write answers for as long as the stream lasts."""
        while True:
            if self._news is not None:
                news, self._news = self._news, None
                await self._context.write(news)
            while not self._ready:
                if self._has_ended:
                    return
                if self._news is not None:
                    break
                self._is_ready.clear()
                await self._is_ready.wait()
            if not self._ready:
                continue
            message_id, answer, size = self._ready.popleft()
            if isinstance(answer, Replies):
                errors = await _encoded(answer.refusals) if len(answer.refusals) > _REFUSALS_PER_TURN else None
                answer = wire.encode_replies(message_id, answer, errors)
            await self._context.write(answer)
            if size is not None:
                self._messages -= 1
                self._bytes -= size
                self._has_room.set()


async def _encoded(refusals: dict[int, PolicyServerError]) -> list[pb.RowError]:
    """Encode many refusals, a few in each turn of the loop, so that the others' rows don't wait for them."""
    errors: list[pb.RowError] = []
    for row, error in sorted(refusals.items()):
        errors.append(to_row_error(row, error))
        if len(errors) % _REFUSALS_PER_TURN == 0:
            await asyncio.sleep(0)
    return errors
