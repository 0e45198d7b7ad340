"""The health check of a container, asked as its runtime does."""

from __future__ import annotations

import pytest

from deploy.health import server as wrong_with
from tests.proxies import NamedProxy
from tests.server.serving_loop_harness import running_serving_loop


@pytest.mark.long
@pytest.mark.parametrize("kind", ["http", "address"])
def test_a_server_of_this_machine_is_well_whatever_proxy_the_environment_names(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    with running_serving_loop() as serve, NamedProxy() as proxy:
        proxy.put_into_environment(monkeypatch, kind)
        run = serve.client().server_info().run
        assert (wrong_with(serve.address, run), proxy.asked) == ("", [])
        serve.serving_loop.stop()
        assert wrong_with(serve.address, run) == f"{serve.address}: UNAVAILABLE"
