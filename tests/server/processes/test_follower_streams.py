"""An actor's link to a daemon on another machine leaves no object of a stream, and a thread that can't be started costs one attempt."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from policyserver.server.processes.link import INTERRUPT
from policyserver.server.processes.remote_link import RemoteLink
from tests.server.processes.test_remote_link import NEVER_S, VERSION, Follower, following, until
from tests.streams import Streams

pytestmark = [pytest.mark.process, pytest.mark.long]


@pytest.fixture
def link() -> Iterator[RemoteLink]:
    made = RemoteLink("127.0.0.1", VERSION, silent_s=NEVER_S)
    yield made
    made.close()


def test_an_actor_leaves_no_object_of_a_stream_that_it_or_the_daemon_has_ended(streams: Streams) -> None:
    link = RemoteLink("127.0.0.1", VERSION, silent_s=NEVER_S)
    try:
        stopped, left_alone = Follower(link, 1), Follower(link, 2)
        with following(left_alone):
            with following(stopped):
                until(lambda: link.connected() == [1, 2])
                assert streams.left == 2
            assert streams.left == 1
            link.close()
            assert left_alone.gone.wait(60.0)
            assert streams.left == 0
    finally:
        link.close()


@pytest.mark.parametrize("number", range(4))
def test_an_actor_follows_although_a_thread_could_not_be_started(
    link: RemoteLink, fail_start: Callable[[int, str], list[int]], number: int
) -> None:
    """Two are tried, then gRPC starts its own two."""
    seen = fail_start(number, "follow-driver")
    follower = Follower(link)
    with following(follower):
        until(lambda: link.connected() == [1])
        link.order(INTERRUPT)
        assert follower.next(INTERRUPT) is None
    assert len(seen) > number
