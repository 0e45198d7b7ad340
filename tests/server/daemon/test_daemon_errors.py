"""The line by which the daemon says what ended it, of an error that came from another process."""

from __future__ import annotations

import pytest
import ray.exceptions

from policyserver.server.daemon.daemon_errors import last_line


def test_the_error_of_a_process_of_ray_is_its_own_last_line() -> None:
    text = '\x1b[36mray::ExternalEnvRunner.__init__()\x1b[39m (pid=7)\n  File "net.py", line 3, in make\nValueError: no such size\n'
    error = ray.exceptions.RayTaskError("make_net", text, ValueError("no such size"))
    assert last_line(error) == "ValueError: no such size"


@pytest.mark.parametrize(("error", "text"), [(ValueError(), "ValueError"), (OSError("a" * 400), f"{'a' * 297}...")])
def test_an_error_without_a_text_is_named_and_a_long_one_is_cut(error: Exception, text: str) -> None:
    assert last_line(error) == text
