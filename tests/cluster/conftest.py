"""Hosts of the tests' own. Where they can't be made, the tests are skipped with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

import pytest

from tests.cluster.hosts import Host, hosts, why_not


@pytest.fixture(scope="session")
def made_of_namespaces(missing_service: Callable[[str], NoReturn]) -> None:
    if reason := why_not():
        missing_service(reason)


@pytest.fixture
def two_hosts(made_of_namespaces: None) -> Iterator[Sequence[Host]]:
    with hosts(2) as both:
        yield both


@pytest.fixture
def three_hosts(made_of_namespaces: None) -> Iterator[Sequence[Host]]:
    with hosts(3) as all_of_them:
        yield all_of_them


@pytest.fixture
def four_hosts(made_of_namespaces: None) -> Iterator[Sequence[Host]]:
    with hosts(4) as all_of_them:
        yield all_of_them
