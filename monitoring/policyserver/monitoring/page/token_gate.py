"""Lets only viewers with the token see the page."""

from __future__ import annotations

import base64
import binascii
import hmac

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class TokenGate:
    """Passes requests that bring the token: as the password of Basic authentication, with any user name, or as a bearer token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        """Guard an application."""
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 without the token."""
        if scope["type"] != "http" or hmac.compare_digest(_given(Headers(scope=scope).get("authorization", "")), self._token):
            await self._app(scope, receive, send)
            return
        challenge = {"WWW-Authenticate": 'Basic realm="policy server: any user, the token as password", charset="UTF-8"'}
        await PlainTextResponse("expected this server's token as the password\n", 401, challenge)(scope, receive, send)


def _given(authorization: str) -> bytes:
    """Return the secret in a header, empty without one."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode()
    try:
        return base64.b64decode(value, validate=True).partition(b":")[2] if scheme.lower() == "basic" else b""
    except binascii.Error:
        return b""
