"""Fixtures that every area shares. A test that needs a service of the machine calls `missing_service` where it does not find it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NoReturn

import pytest


@pytest.fixture(scope="session")
def missing_service() -> Callable[[str], NoReturn]:
    """Skip for want of a service, naming it; fail instead where REQUIRE_SERVICES is set, as CI does."""

    def missing(reason: str) -> NoReturn:
        if os.environ.get("REQUIRE_SERVICES"):
            pytest.fail(f"REQUIRE_SERVICES is set: {reason}", pytrace=False)
        pytest.skip(reason)

    return missing
