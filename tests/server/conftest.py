from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from tests.server.core_harness import CoreHarness
from tests.server.external_env_harness import Served, serving_env
from tests.server.message_stream import Stream
from tests.server.serving_loop_harness import ServingLoopHarness, running_serving_loop


@pytest.fixture(autouse=True)
def seeded_nets() -> None:
    """The nets that a test builds are the same in each run, so that a comparison within rounding does not depend on the day."""
    torch.manual_seed(0)


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
def serve() -> Iterator[ServingLoopHarness]:
    """A serving loop with default settings."""
    with running_serving_loop() as harness:
        yield harness


@pytest.fixture
def stream(serve: ServingLoopHarness) -> Iterator[Stream]:
    """A stream of that serving loop, hands shaken."""
    stream = Stream(serve)
    assert stream.receive().WhichOneof("kind") == "handshake"
    yield stream
    stream.close()


@pytest.fixture
def served() -> Iterator[Served]:
    """An ExternalEnv in this process whose calls the test makes."""
    with serving_env() as served:
        yield served


@pytest.fixture
def env(served: Served) -> Any:
    """That environment."""
    return served.env


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool]], None]:
    """Wait for what another process or thread will bring about and nobody announces."""

    def wait(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"still not true after {timeout_s:g} s"
            time.sleep(0.01)

    return wait
