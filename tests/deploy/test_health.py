"""The health check of a container, asked as its runtime does."""

from __future__ import annotations

import pytest

from deploy import health
from tests.proxies import NamedProxy
from tests.server.serving_loop_harness import running_serving_loop


@pytest.mark.long
@pytest.mark.parametrize("kind", ["http", "address"])
def test_a_server_of_this_machine_is_well_whatever_proxy_the_environment_names(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    with running_serving_loop() as serve, NamedProxy() as proxy:
        proxy.put_into_environment(monkeypatch, kind)
        monkeypatch.setattr(health, "_TIMEOUT_S", 60.0)  # a busy machine may stand still for longer than a container may
        run = serve.client().server_info().run
        assert (health.server(serve.address, run), proxy.asked) == ("", [])
        serve.serving_loop.stop()
        assert health.server(serve.address, run) == f"{serve.address}: UNAVAILABLE"
