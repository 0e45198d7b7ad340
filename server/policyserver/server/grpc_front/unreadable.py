"""Answers to bytes that are no message of any service here; gRPC itself would say UNKNOWN and log a traceback for each."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc

from policyserver.common.errors import WireError, reason_and_code_of, to_metadata

logger = logging.getLogger(__name__)


class Unreadable:
    """Stands for a request that could not be read."""


class UnreadableInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Answers INVALID_ARGUMENT to unreadable requests of all services. It must be the first, so that it sees the handlers of the others."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        """Have a handler's requests read with care."""
        handler = await continuation(details)
        if handler is None or handler.request_deserializer is None:
            return handler
        read, write = _carefully(handler.request_deserializer), handler.response_serializer
        if (answer := handler.stream_stream) is not None:
            # One that is no generator reads by `readable`.
            checked = _checked_stream(answer) if inspect.isasyncgenfunction(answer) else answer
            return grpc.stream_stream_rpc_method_handler(checked, read, write)
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(_checked(handler.unary_stream), read, write)
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(_checked(handler.unary_unary), read, write)
        return handler


async def readable(context: grpc.aio.ServicerContext[Any, Any]) -> Any:
    """Read the next request of a stream, or end the call if it can't be read, for then its rows are unknown."""
    request = await context.read()
    if isinstance(request, Unreadable):
        await _refuse(context)
    return request


def _carefully(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def careful(data: bytes) -> Any:
        try:
            return read(data)
        except Exception as error:  # a message of protobuf's, whatever it is
            logger.debug("%d bytes are no message: %s", len(data), error)
            return Unreadable()

    return careful


def _checked(answer: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
    async def checked(request: Any, context: Any) -> Any:
        if isinstance(request, Unreadable):
            await _refuse(context)
        return await answer(request, context)

    return checked


def _checked_stream(answer: Callable[[Any, Any], AsyncIterator[Any]]) -> Callable[[Any, Any], AsyncIterator[Any]]:
    async def requests_of(requests: Any, context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            if isinstance(request, Unreadable):
                await _refuse(context)
            yield request

    async def checked(requests: Any, context: Any) -> AsyncIterator[Any]:
        async for response in answer(requests_of(requests, context), context):
            yield response

    return checked


async def _refuse(context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
    error = WireError("expected a message as the .proto of this service describes it, received other bytes")
    await context.abort(reason_and_code_of(error)[1], str(error), to_metadata(error))
