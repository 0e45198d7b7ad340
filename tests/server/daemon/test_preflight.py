"""What is refused before anything starts, in one line that names the setting, by `serve` and by `check-config` alike."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from policyserver.common.settings import SettingsError, load
from policyserver.server.__main__ import main
from policyserver.server.config.algorithm import algorithm_config, check_devices
from policyserver.server.config.rllib_config import SpacesConfig
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.checkpoints import CheckpointFolder
from policyserver.server.daemon.ray_start import RayProcess
from policyserver.server.processes.training_report import Progress
from policyserver.server.runner.env_runner import ExternalEnvRunner

TOKEN = "0123456789abcdef"


@pytest.fixture
def certificates(tmp_path: Path, missing_service: Callable[[str], NoReturn]) -> Path:
    """A folder with two certificates and keys, `one` and `other`, an expired certificate of `one.key`, and a token."""
    if shutil.which("openssl") is None:
        missing_service("the command openssl, which makes a certificate, is not installed")
    new = "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost"
    for command in (
        f"{new} -x509 -days 1 -keyout one.key -out one.pem",
        f"{new} -x509 -days 1 -keyout other.key -out other.pem",
        "openssl req -new -key one.key -subj /CN=localhost -out one.request",
        "openssl x509 -req -in one.request -signkey one.key -days 0 -out expired.pem",
        "openssl ec -in one.key -aes256 -passout pass:secret -out locked.key",
    ):
        subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "garbage.pem").write_text("garbage")
    (tmp_path / "token").write_text(TOKEN)
    for file in tmp_path.iterdir():
        file.chmod(0o600)
    return tmp_path


Refused = Callable[..., None]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Refused]:
    """Expect commands to refuse options, in one line and with a status, before Ray starts."""

    def refuse(options: Sequence[str], status: int, *texts: str, commands: Sequence[str] = ("check-config", "serve")) -> None:
        for command in commands:
            ended = main([command, *options])
            said = capsys.readouterr()
            assert ended == status, f"{command}: {said.err}"
            (line,) = [line for line in said.err.splitlines() if line.startswith("policy-server: ")]
            for text in texts:
                assert text in line
            assert "Traceback" not in said.err
            assert said.out == ""

    monkeypatch.setattr(RayProcess, "start", lambda *_, **__: pytest.fail("it starts Ray"))
    root = logging.getLogger()
    kept = root.handlers[:], root.level
    environment, temporary = dict(os.environ), tempfile.tempdir
    yield refuse
    logging.captureWarnings(False)
    for handler in set(root.handlers) - set(kept[0]):
        handler.close()
    root.handlers[:] = kept[0]
    root.setLevel(kept[1])
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = temporary


@pytest.mark.process
@pytest.mark.parametrize(
    ("certificate", "key", "text"),
    [
        ("one.pem", "other.key", "listen.tls_key_file: expected the private key (PEM) of the certificate in"),
        ("one.pem", "garbage.pem", "listen.tls_key_file: expected the private key (PEM) of the certificate in"),
        ("one.pem", "locked.key", "listen.tls_key_file: expected a key without a passphrase"),
        ("garbage.pem", "one.key", "listen.tls_certificate_file: expected a certificate chain (PEM)"),
        ("expired.pem", "one.key", "listen.tls_certificate_file: expected a certificate that is valid now"),
    ],
)
def test_a_certificate_or_key_that_will_not_do(certificate: str, key: str, text: str, certificates: Path, refused: Refused) -> None:
    files = {"tls_certificate_file": certificate, "tls_key_file": key, "token_file": "token"}
    options = [word for name, file in files.items() for word in (f"--listen.{name}", str(certificates / file))]
    refused([*options, "--listen.address", "127.0.0.1:0", "--run_folder", str(certificates / "run")], 78, text)


@pytest.mark.long
def test_an_open_address_and_a_page_without_the_certificate_and_the_token_that_it_needs(tmp_path: Path, refused: Refused) -> None:
    folder = ["--run_folder", str(tmp_path / "run")]
    missing = "listen.tls_certificate_file and listen.tls_key_file and listen.token_file must be given"
    refused([*folder, "--listen.address", "0.0.0.0:9900"], 78, "listen.address", missing)
    local = ["--listen.address", "127.0.0.1:0"]
    refused([*folder, *local, "--recording.page", "0.0.0.0:9980"], 78, "recording.page", missing)
    refused([*folder, *local, "--listen.token_file", str(tmp_path / "none")], 78, "listen.token_file: expected a readable file")
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_secrets_that_would_be_asked_for_by_who_hears_rays_plain_text(tmp_path: Path, refused: Refused) -> None:
    options = ["--run_folder", str(tmp_path / "run"), "--ray.send_secrets", "true"]
    joins = ["--ray.address", "10.0.0.1:6379", "--listen.advertise", "{node_ip}:{port}"]
    refused([*options, *joins], 2, "ray.send_secrets: expected Ray's TLS (RAY_USE_TLS=1 here and on each node)")
    refused(options, 2, "send_secrets: expected ray.address with it")


@pytest.mark.long
def test_an_action_space_that_the_algorithm_has_no_net_for(tmp_path: Path, refused: Refused) -> None:
    box = '{type = "Box", low = -1.0, high = 1.0, shape = [2]}'
    refused(["--run_folder", str(tmp_path), "--algorithm.name", "DQN", "--spaces.action", box], 2, "spaces.action: expected a Discrete")


@pytest.mark.long
def test_an_observation_space_that_rllib_has_no_net_for(tmp_path: Path, refused: Refused) -> None:
    odd = '{type = "Box", low = 0.0, high = 1.0, shape = [5, 7, 3]}'
    options = ["--run_folder", str(tmp_path), "--listen.address", "127.0.0.1:0", "--spaces.observation", odd]
    refused(options, 2, "spaces: RLlib makes no net for the observation space Box(0.0, 1.0, (5, 7, 3)")


@pytest.mark.long
@pytest.mark.parametrize("setting", ["run_folder", "checkpoints.folder", "recording.store"])
def test_folders_that_cannot_be_written(setting: str, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "file").write_text("a file where a folder is expected")
    below = "file/below/store.sqlite" if setting == "recording.store" else "file/below"
    others = [] if setting == "run_folder" else ["--run_folder", str(tmp_path / "run")]
    refused([*others, f"--{setting}", str(tmp_path / below)], 2, f"{setting}: expected a folder that this user can write", "is no folder")
    assert (tmp_path / "file").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_run_folder_on_a_file_system_that_takes_none(refused: Refused) -> None:
    options = ["--run_folder", "/proc/policy-server", "--listen.address", "127.0.0.1:0"]
    refused(options, 2, "run_folder: expected a folder that this user can write, received /proc/policy-server", commands=["serve"])


@pytest.mark.long
def test_a_checkpoint_of_another_configuration(tmp_path: Path, refused: Refused) -> None:
    spaces = SpacesConfig(action={"type": "Discrete", "n": 2})
    checkpoints = CheckpointFolder(ServerConfig(run_folder=tmp_path).checkpoints_folder, 3, spaces)
    checkpoints.save(lambda folder: (folder / "weights").write_text("x"), Progress(iteration=1))
    checkpoints.close()
    options = ["--run_folder", str(tmp_path), "--listen.address", "127.0.0.1:0"]
    refused(options, 2, "checkpoints: ", "made for the action space Discrete(2), but the configuration says Discrete(3)")


@pytest.mark.long
@pytest.mark.parametrize("named", ["99", '"/nowhere/checkpoint-00000099"'])
def test_a_policy_to_load_whose_checkpoint_is_not_there(named: str, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "server.toml").write_text(f"[policies]\nload = {{champion = {named}}}\n", encoding="utf-8")
    options = ["--config", str(tmp_path / "server.toml"), "--run_folder", str(tmp_path / "run"), "--listen.address", "127.0.0.1:0"]
    refused(options, 2, "policies.load.champion: expected the ", commands=["serve"])
    assert not (tmp_path / "run").exists(), "and what the run had is as before"


@pytest.mark.long
def test_a_store_that_is_none_and_cannot_be_put_aside(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "store.sqlite").mkdir()
    options = ["--run_folder", str(tmp_path), "--listen.address", "127.0.0.1:0"]
    text = f"recording.store: expected a file that SQLite can write to, received {tmp_path}/store.sqlite"
    refused(options, 2, text, commands=["serve"])


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("x" * 120, "expected a path of at most 1"),
        ("nowhere/socket", "nowhere is no folder"),
        ("file", "received another kind of file"),
    ],
)
def test_a_unix_socket_that_cannot_be_made(path: str, text: str, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "file").touch()
    options = ["--run_folder", str(tmp_path / "run"), "--listen.address", f"unix:{tmp_path / path}"]
    refused(options, 2, "listen.address: expected ", text, commands=["serve"])


@pytest.mark.process
@pytest.mark.timeout(200)
@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare makes a network without a loopback")
def test_a_machine_whose_loopback_is_down(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-n", "true"], check=False).returncode:
        pytest.skip("this user may not make a network namespace")
    command = ["unshare", "-n", sys.executable, "-m", "policyserver.server", "serve", "--run_folder", str(tmp_path / "run")]
    server = subprocess.Popen(
        [*command, "--listen.address", f"unix:{tmp_path / 'socket'}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        said, _ = server.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        server.kill()
        said = f"nothing within 120 s but {server.communicate()[0]!r}"
    assert "policy-server: expected the loopback interface to be up" in said
    assert server.returncode == 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no names for a claim")
@pytest.mark.parametrize("kind", ["port", "unix"])
def test_an_address_is_claimed_before_anybody_listens_there(kind: str, tmp_path: Path) -> None:
    from policyserver.server.grpc_front.listen_address import AddressInUseError, claimed

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}" if kind == "port" else f"unix:{tmp_path / 'socket'}"
    with claimed(address):
        with pytest.raises(AddressInUseError, match="in use by another process"), claimed(address):
            pass
        with claimed(f"127.0.0.2:{port}" if kind == "port" else f"{address}.1"):
            pass
    with claimed(address):
        pass


@pytest.mark.long
@pytest.mark.parametrize(
    ("options", "key", "expected"),
    [
        (["--algorithm.learners", "{num_gpus_per_learner = 1000}"], "algorithm.learners.num_gpus_per_learner", "the GPUs of this machine"),
        (["--algorithm.training", "{lr = -1}"], "algorithm.training.lr", "at least 0, received -1"),
        (["--algorithm.training", "{lr = [[0, 0.1], [10, -1]]}"], "algorithm.training.lr", "at least 0, received [[0, 0.1], [10, -1]]"),
        (["--algorithm.training", "{num_epochs = 0}"], "algorithm.training.num_epochs", "at least 1, received 0"),
        (["--algorithm.training", "{train_batch_size_per_learner = 0}"], "algorithm.training.train_batch_size_per_learner", "at least 1"),
        (["--algorithm.env_runners", "{num_env_runners = -2}"], "algorithm.env_runners.num_env_runners", "at least 0, received -2"),
    ],
)
def test_numbers_that_rllib_takes_and_fails_over_later_are_refused(
    refused: Refused, tmp_path: Path, options: list[str], key: str, expected: str
) -> None:
    refused(["--run_folder", str(tmp_path / "run"), *options], 2, f"policy-server: {key}: expected", expected)


@pytest.mark.parametrize(("learners", "gpus", "fits"), [(0, 1, True), (2, 0.5, True), (2, 0.6, False), (2, 1, False)])
def test_learners_may_share_a_gpu(monkeypatch: pytest.MonkeyPatch, learners: int, gpus: float, fits: bool) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    wanted = {"num_learners": learners, "num_gpus_per_learner": gpus}
    built = algorithm_config(load(ServerConfig, None, {"algorithm.learners": wanted}), ExternalEnvRunner)
    with contextlib.nullcontext() if fits else pytest.raises(SettingsError, match="num_gpus_per_learner: expected at most"):
        check_devices(built)
