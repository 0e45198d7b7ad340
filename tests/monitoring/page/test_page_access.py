"""Who may see the live page: everybody on this machine, and beyond it those who have the token, over TLS."""

from __future__ import annotations

import base64
import ssl

import pytest

from policyserver.common.listening import InsecureListenError
from policyserver.monitoring.page.listen import PageConfig
from policyserver.monitoring.page.server import PageServer
from tests.monitoring.page_harness import TOKEN, get

pytestmark = pytest.mark.process


def test_beyond_this_machine_the_page_wants_tls_and_the_token(open_page: PageServer, protected: PageConfig) -> None:
    assert protected.tls_certificate_file is not None
    trusting = ssl.create_default_context(cafile=str(protected.tls_certificate_file))
    port = open_page.address.rpartition(":")[2]
    assert open_page.address == f"https://0.0.0.0:{port}"
    url = f"https://127.0.0.1:{port}"

    def basic(password: str) -> dict[str, str]:
        return {"Authorization": "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()}

    for path in ("/", "/snapshot", "/events", "/static/page.js"):
        for wrong in ({}, basic("0123456789abcdeg"), basic(""), {"Authorization": "Basic %%%"}, {"Authorization": f"Bearer {TOKEN}x"}):
            assert get(url + path, wrong, trusting)[0] == 401, (path, wrong)
    for right in (basic(TOKEN), {"Authorization": f"Bearer {TOKEN}"}):
        assert get(f"{url}/snapshot", right, trusting)[0] == 200
    with pytest.raises(OSError, match=r"reset|disconnect|closed"):
        get(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:9980", "page.example:9980"])
def test_without_them_it_stays_on_this_machine(address: str) -> None:
    with pytest.raises(InsecureListenError, match=r"--address: .* so --tls_certificate_file and --tls_key_file and --token_file must"):
        PageServer(PageConfig(address), key="--address", prefix="--")


def test_a_token_that_others_can_read_is_refused(protected: PageConfig) -> None:
    assert protected.token_file is not None
    protected.token_file.chmod(0o644)
    with pytest.raises(InsecureListenError, match=r"listen.token_file: .*mode 644"):
        PageServer(protected, prefix="listen.")


def test_a_certificate_that_is_none_is_refused_before_anything_is_served(protected: PageConfig) -> None:
    assert protected.tls_certificate_file is not None
    protected.tls_certificate_file.write_text("none")
    with pytest.raises(InsecureListenError, match=r"listen.tls_certificate_file: expected a certificate"):
        PageServer(protected, prefix="listen.")


@pytest.mark.parametrize("address", ["9980", "unix:/run/page.sock", "127.0.0.1:99999", ""])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"address: expected HOST:PORT such as 127.0.0.1:9980, with a port of at most 65535, received"):
        PageConfig(address)
