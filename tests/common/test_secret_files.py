"""Who may read a secret: its owner alone, and a service that its manager gave it to."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyserver.common.listening import InsecureListenError, read_secret


@pytest.mark.parametrize(("mode", "refused"), [(0o600, False), (0o400, False), (0o440, True), (0o604, True)])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, mode: int, refused: bool) -> None:
    secret = tmp_path / "token"
    secret.write_text("secret")
    secret.chmod(mode)
    if not refused:
        assert read_secret(secret, "listen.token_file") == b"secret"
        return
    with pytest.raises(InsecureListenError, match=r"listen\.token_file: expected a file that its owner alone can read"):
        read_secret(secret, "listen.token_file")


def test_a_service_s_credentials_have_an_access_list_that_shows_as_the_group_s_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "credentials"
    (folder / "below").mkdir(parents=True)
    inside, outside, below = folder / "token", tmp_path / "token", folder / "below" / "token"
    for file in (inside, outside, below):
        file.write_text("secret")
        file.chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    assert read_secret(inside, "listen.token_file") == b"secret"
    for file in (outside, below):
        with pytest.raises(InsecureListenError):
            read_secret(file, "listen.token_file")
    inside.chmod(0o444)
    with pytest.raises(InsecureListenError):
        read_secret(inside, "listen.token_file")
    inside.chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "credentials")  # no absolute path: not systemd's
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InsecureListenError):
        read_secret(inside, "listen.token_file")
