"""Fixtures: an InfluxDB, a store with a run in it, its page, a browser."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from policyserver.monitoring.page.listen import PageConfig
from policyserver.monitoring.page.server import PageServer
from policyserver.monitoring.store.store import EmbeddedStore, StoreConfig
from tests.browser import Browser
from tests.monitoring.filled_store import FilledRun, fill
from tests.monitoring.page_harness import TOKEN, serve
from tests.services import InfluxServer, MissingService


@pytest.fixture
def influx(tmp_path: Path, missing_service: MissingService) -> Iterator[InfluxServer]:
    """An InfluxDB that is not started yet."""
    server = InfluxServer(tmp_path / "influx", missing_service)
    yield server
    server.kill()


@pytest.fixture
def page_store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    """A store with the last minute of `run-1`: 64 episodes that ended, and 64 that have reached bar 39. Room for more."""
    path = tmp_path / "store.sqlite"
    fill(path, FilledRun("run-1"), steps=64 * 240)
    store = EmbeddedStore(path, StoreConfig(commit_interval_s=0.05))
    yield store
    store.close(60.0)


@pytest.fixture
def page(page_store: EmbeddedStore) -> Iterator[PageServer]:
    """The store's page."""
    page = serve(page_store.path)
    yield page
    page.close()


@pytest.fixture(scope="session")
def running_browser(tmp_path_factory: pytest.TempPathFactory, missing_service: MissingService) -> Iterator[Browser]:
    """A browser, which takes seconds to start."""
    browser = Browser(tmp_path_factory.mktemp("browser") / "profile", missing_service)
    yield browser
    browser.close()


@pytest.fixture
def browser(running_browser: Browser) -> Iterator[Browser]:
    """A browser that shows nothing; each page server has a port, and so an origin, of its own."""
    yield running_browser
    running_browser.open("about:blank")
    running_browser.errors()  # are read once


@pytest.fixture
def protected(tmp_path: Path, missing_service: MissingService) -> PageConfig:
    """All interfaces, with a certificate for 127.0.0.1 and a token."""
    if shutil.which("openssl") is None:
        missing_service("the command openssl, which makes a certificate, is not installed")
    certificate, key, token_file = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "token"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=page -addext"
    names = "subjectAltName=IP:127.0.0.1"
    subprocess.run([*command.split(), names, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    token_file.touch(0o600)
    token_file.write_text(f"{TOKEN}\n")
    return PageConfig("0.0.0.0:0", certificate, key, token_file)


@pytest.fixture
def open_page(protected: PageConfig, page_store: EmbeddedStore) -> Iterator[PageServer]:
    page = PageServer(protected)
    page.start(page_store.path)
    yield page
    page.close()
