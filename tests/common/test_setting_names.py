"""Whatever value a setting refuses, the error has the setting's dotted key."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from policyserver.common.settings import SettingsError, known_keys, load
from policyserver.pipelines.config import PipelineConfig
from policyserver.server.config.server_config import ServerConfig

WRONG_NUMBERS = (-1, 0, 2, 10**6, -1.0, 0.0, 2.0, math.nan, math.inf)
WRONG_TEXTS: tuple[Any, ...] = ("", "no such", ":::", ["a", "a"], [])
WRONG_TABLES: tuple[dict[str, Any], ...] = (
    {"low": 2.0, "high": 1.0},
    {"low": -1.0, "high": 1.0},
    {"low": math.nan, "high": 1.0},
    {"type": "Box"},
    {"type": "Boks"},
    {},
)


def refusals(cls: type) -> Iterator[SettingsError]:
    """Try every wrong value on every setting."""
    for key in known_keys(cls):
        for value in (*WRONG_NUMBERS, *WRONG_TEXTS, *WRONG_TABLES):
            try:
                load(cls, None, {key: value})
            except SettingsError as error:
                yield error


@pytest.mark.long
@pytest.mark.parametrize(("cls", "least"), [(PipelineConfig, 500), (ServerConfig, 700)])
def test_an_error_names_the_setting_as_it_is_written(cls: type, least: int) -> None:
    keys = known_keys(cls)
    errors = list(refusals(cls))
    for error in errors:
        assert error.key in keys or any(error.key.startswith(f"{key}{more}") for key in keys for more in ".["), str(error)
        assert "Config." not in error.problem, str(error)
    assert len(errors) >= least


def test_a_fraction_of_2_is_refused_by_the_option_that_had_it() -> None:
    with pytest.raises(SettingsError, match=r"^option: rules\.instrument\.fee_fraction: expected at least 0 and less than 1, received 2"):
        load(PipelineConfig, None, {"rules.instrument.fee_fraction": 2.0})
