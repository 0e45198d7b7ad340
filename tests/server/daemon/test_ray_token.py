"""The token by which this process comes into a Ray cluster is found as Ray finds it, and one that is not the cluster's is told at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from policyserver.common.settings import SettingsError
from policyserver.server.daemon.ray_token import accepted_token
from tests.server.daemon.ray_head_harness import head

pytestmark = [pytest.mark.process, pytest.mark.long]

RIGHT, WRONG = "5" * 64, "6" * 64


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No token anywhere, and nothing that Ray keeps of another test's."""
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ENABLE_K8S_TOKEN_AUTH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    AuthenticationTokenLoader.instance().reset_cache()
    yield
    AuthenticationTokenLoader.instance().reset_cache()


def written(file: Path, token: bytes) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(token)
    return file


def refusal() -> str:
    with head(token=RIGHT) as address, pytest.raises(SettingsError) as caught:
        accepted_token(address)
    text = str(caught.value)
    assert caught.value.key == "ray.address"
    assert len(text.splitlines()) == 1
    assert RIGHT not in text
    assert WRONG not in text
    return text


def test_the_clusters_token_is_found_where_ray_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    carried = (("authorization", f"Bearer {RIGHT}"),)
    with head(token=RIGHT) as address:
        written(tmp_path / ".ray" / "auth_token", f"{RIGHT}\n".encode())
        assert accepted_token(address) == carried
        written(tmp_path / ".ray" / "auth_token", WRONG.encode())
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(written(tmp_path / "token", f" {RIGHT} \n".encode())))
        AuthenticationTokenLoader.instance().reset_cache()
        assert accepted_token(address) == carried
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/is/not/there")
        monkeypatch.setenv("RAY_AUTH_TOKEN", RIGHT)
        AuthenticationTokenLoader.instance().reset_cache()
        assert accepted_token(address) == carried


@pytest.mark.parametrize(("mode", "received"), [("", "none"), ("disabled", "'disabled'")])
def test_a_process_that_is_not_told_to_have_a_token_is_told_the_variable(mode: str, received: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN", RIGHT)
    assert f"expected the environment variable RAY_AUTH_MODE to be 'token' here, too, received {received}; set it" in refusal()


@pytest.mark.parametrize(
    ("file", "place"), [("", "the file ~/.ray/auth_token"), ("/is/not/there", "the file /is/not/there (RAY_AUTH_TOKEN_PATH)")]
)
def test_a_token_that_is_missing_is_told_with_where_ray_looks(file: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", file)
    assert f"asks for a token: expected one in {place}, which is missing, empty or can't be read" in refusal()


@pytest.mark.parametrize(
    ("variable", "place"), [("RAY_AUTH_TOKEN", "the environment variable RAY_AUTH_TOKEN"), ("RAY_AUTH_TOKEN_PATH", "the file ")]
)
def test_a_token_of_another_cluster_is_told_with_its_place(
    variable: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, WRONG if variable == "RAY_AUTH_TOKEN" else str(written(tmp_path / "token", WRONG.encode())))
    text = refusal()
    assert f"the token in {place}" in text
    assert "is not that of the Ray cluster at 127.0.0.1:" in text


@pytest.mark.parametrize("token", [b"\xff\xfe\x01" * 8, b"secret\x07text", "s\u00e9cret".encode()])
def test_a_token_that_no_call_can_carry_is_told_without_it(token: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(written(tmp_path / "token", token)))
    text = refusal()
    assert "expected a token of printable ASCII characters in the file" in text
    assert "cret" not in text
