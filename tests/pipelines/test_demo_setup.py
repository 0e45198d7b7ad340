from __future__ import annotations

import contextlib
import socket
import tomllib
from pathlib import Path

import pytest

from pipelines.demo_setup import DEMO_SERVER, RLLIB_SERVER, SERVER_FILE, DemoOptions, fresh_run, resumed_run
from policyserver.settings import SettingsError, load
from server.config import ServerConfig


@pytest.mark.parametrize("server", [DEMO_SERVER, RLLIB_SERVER])
def test_the_chosen_settings_go_into_the_run_folder_with_the_runs_own(server: Path, tmp_path: Path) -> None:
    folder, config = fresh_run(DemoOptions(seed=3, server=server, runs=tmp_path))
    written = load(ServerConfig, folder / SERVER_FILE)
    assert (written.seed, written.run_folder, written.listen.address) == (3, folder, config.server.address)
    assert written.algorithm == load(ServerConfig, server).algorithm


def test_a_resumed_run_keeps_the_settings_it_began_with_and_gets_a_free_address(tmp_path: Path) -> None:
    chosen = tmp_path / "chosen.toml"
    chosen.write_text("# chosen\n\n[algorithm.training]\n\nlr = 0.125\n", encoding="utf-8")
    folder, _ = fresh_run(DemoOptions(server=chosen, runs=tmp_path / "runs"))
    first = (folder / SERVER_FILE).read_text(encoding="utf-8")
    chosen.unlink()
    for _ in range(2):
        again, config = resumed_run(DemoOptions(resume=True, runs=tmp_path / "runs"))
        assert again == folder
        text = (folder / SERVER_FILE).read_text(encoding="utf-8")
        assert text.partition("\n\n")[2] == first.partition("\n\n")[2] == "# chosen\n\n[algorithm.training]\n\nlr = 0.125\n"
        assert tomllib.loads(text)["listen"]["address"] == config.server.address


@pytest.mark.parametrize(
    ("options", "said"),
    [({"server": Path("nowhere.toml")}, "nowhere.toml"), ({"resume": True, "server": RLLIB_SERVER}, "leave .* and --server out")],
)
def test_server_settings_that_cannot_be_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        DemoOptions(**options)  # type: ignore[arg-type]


def test_a_run_beside_another_gets_the_next_port_and_none_that_the_system_hands_out(tmp_path: Path) -> None:
    with contextlib.ExitStack() as taken:
        with contextlib.suppress(OSError):  # somebody else has it: as good
            taken.enter_context(socket.create_server(("127.0.0.1", 9900)))
        _, config = fresh_run(DemoOptions(runs=tmp_path))
        assert 9900 < int(config.server.address.removeprefix("127.0.0.1:")) < 10_000
