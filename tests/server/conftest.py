from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.server.core_harness import CoreHarness
from tests.server.front_harness import FrontHarness, running_front


@pytest.fixture
def make_harness() -> Iterator[Callable[..., CoreHarness]]:
    """Make episode cores whose loops are closed after the test."""
    made: list[CoreHarness] = []

    def make(*args: object, **options: object) -> CoreHarness:
        made.append(CoreHarness(*args, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for harness in made:
        harness.close()


@pytest.fixture
def harness(make_harness: Callable[..., CoreHarness]) -> CoreHarness:
    return make_harness()


@pytest.fixture
def serve() -> Iterator[FrontHarness]:
    """A front with default settings."""
    with running_front() as harness:
        yield harness
