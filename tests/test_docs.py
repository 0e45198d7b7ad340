"""The site: it builds from the pages in docs/ and from the code, without a warning, and its reference is whole."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from pathlib import Path

import pytest

import policyserver.client
import policyserver.server
from policyserver.common.settings import known_keys
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.market.files.config import FilesConfig
from policyserver.server.config.server_config import ServerConfig
from policyserver.v1 import admin_service_pb2, policy_service_pb2, space_pb2, tensor_pb2

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.timeout(300)  # the first test builds the site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it as `make docs` does, in this process, which has imported what the reference is made of."""
    from sphinx.cmd.build import main

    folder = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--fail-on-warning", "--keep-going", "--builder", "html"]
    said = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stderr(said):
        warnings.simplefilter("ignore")  # Python's, not those of the build
        status = main([*options, str(ROOT / "docs"), str(folder)])
    assert status == 0, said.getvalue()
    return folder


def text_of(page: Path) -> str:
    return re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("page", "config"), [("server_settings", ServerConfig), ("pipeline_settings", PipelineConfig), ("file_settings", FilesConfig)]
)
def test_the_reference_has_every_key_of_a_configuration_file(site: Path, page: str, config: type) -> None:
    text = (site / "reference" / f"{page}.html").read_text(encoding="utf-8")
    assert [key for key in known_keys(config) if f">{key}</span>" not in text] == []


@pytest.mark.parametrize(("page", "names"), [("client", policyserver.client.__all__), ("server", policyserver.server.__all__)])
def test_the_reference_has_every_public_name(site: Path, page: str, names: list[str]) -> None:
    texts = text_of(site / "reference" / f"{page}.html") + text_of(site / "reference" / "errors.html")
    assert [name for name in names if name not in texts] == []


def test_the_reference_has_every_message_and_every_reason_of_the_protocol(site: Path) -> None:
    text = text_of(site / "reference" / "protocol.html")
    files = [module.DESCRIPTOR for module in (admin_service_pb2, policy_service_pb2, space_pb2, tensor_pb2)]
    assert [name for file in files for name in file.message_types_by_name if name not in text] == []
    reasons = text_of(site / "reference" / "errors.html")
    names = [name.removeprefix("REASON_") for name in policy_service_pb2.Reason.keys()]  # noqa: SIM118 - no dict
    assert [name for name in names[1:] if name not in reasons] == []


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = [page.read_text(encoding="utf-8") for page in site.rglob("*.html")]
    assert pages
    loads = re.compile(r'<(?:script|link|img)\b[^>]*\b(?:src|href)="(https?://[^"]+)')
    assert [url for page in pages for url in loads.findall(page)] == []
