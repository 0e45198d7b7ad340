"""What a window tells of the server beside what the load counted."""

from __future__ import annotations

import pytest

from benchmarks.speed.contenders import loaded
from benchmarks.speed.servers import Servers
from tests.live_server import Serving

pytestmark = pytest.mark.timeout(600)


class OneServer(Servers):
    """Gives everybody the session's server."""

    def __init__(self, server: Serving) -> None:
        super().__init__()
        self._server = server

    def running(self, config: str, *, unix: bool = False) -> Serving:
        return self._server


@pytest.mark.slow
@pytest.mark.parametrize(("training", "learner"), [(False, "idle"), (True, "busy")])
def test_a_window_has_the_servers_processor_time_and_memory(cartpole_serving: Serving, training: bool, learner: str) -> None:
    options = {"callers": 8, "episode_steps": 20, "training": training}
    with OneServer(cartpole_serving) as servers, loaded("threads", options, "", "MLP")(servers) as window:
        before = cartpole_serving.cpu_s()
        figures = window(1.0)
        spent_s = cartpole_serving.cpu_s() - before
    assert figures["learner"] == learner
    assert 0 < figures["cpu_us_per_action"] * figures["actions_total"] / 1e6 <= spent_s + 1e-9
    assert abs(figures["memory_mb"] - figures["memory_before_mb"]) < 500
    assert figures["memory_mb"] == pytest.approx(cartpole_serving.memory_mb(), abs=200)  # megabytes, not what a window added


@pytest.mark.slow
def test_after_a_busy_window_the_learner_rests(cartpole_serving: Serving) -> None:
    options = {"episodes": 64, "episode_steps": 50, "training": True}
    with OneServer(cartpole_serving) as servers, loaded("vector", options, "", "MLP")(servers) as window:
        window(1.0)
    assert cartpole_serving.daemon.cpu_percent(0.5) < 60
