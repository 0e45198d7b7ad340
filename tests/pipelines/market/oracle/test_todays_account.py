"""With the settings of README.md's section 9 the oracle is the scalar account that the demo had before blocks; it imports nothing of it."""

from __future__ import annotations

import ast
import math
import random
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pipelines.market.oracle.account import Account
from tests.pipelines.market.oracle.orders import Kind
from tests.pipelines.market.oracle.session import draw_bar
from tests.pipelines.market.oracle.terms import Instrument, Rules
from tests.pipelines.market.reference.account import Account as TodaysAccount
from tests.pipelines.market.reference.account import AccountConfig

ENGINE = ("account", "matching", "orders", "terms")


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from((0.5, 1.0, 5.0)), st.sampled_from((0.0, 0.001)), st.sampled_from((0.0, 0.0001)))
def test_it_is_todays_account(rng: random.Random, unit_fraction: float, fee_fraction: float, slippage_fraction: float) -> None:
    config = AccountConfig(unit_fraction=unit_fraction, fee_fraction=fee_fraction, slippage_fraction=slippage_fraction)
    today = TodaysAccount(config, price=100.0)
    oracle = Account(
        Rules(max_leverage=math.inf, reward_scale=config.reward_scale),
        [Instrument(fee_fraction=fee_fraction, slippage_fraction=slippage_fraction)],
        [100.0],
    )
    for _ in range(15):
        target = rng.choice((-1, 0, 1))
        order = today.order_to(target)
        if order is not None:
            wanted = target * unit_fraction * oracle.equity / oracle.price[0] - oracle.position[0]
            assert wanted == pytest.approx(order.quantity, rel=1e-9, abs=1e-9)
            if wanted:
                oracle.submit(0, Kind.MARKET, wanted)
        bar = draw_bar(rng, today.price)
        step = oracle.step([bar])
        if order is not None:
            fill = today.fill(order, bar.open)
            if order.quantity:
                (own,) = step.fills
                received = (own.side * own.quantity, own.price, own.fee, own.quantity * abs(own.price - own.reference))
                expected = (fill.quantity, fill.price, fill.fee, fill.slippage)
                assert received == pytest.approx(expected, rel=1e-9, abs=1e-9)
        assert step.reward == pytest.approx(today.mark(bar.close), abs=1e-9)
        assert step.equity == pytest.approx(today.equity, rel=1e-9, abs=1e-9)
        assert oracle.turnover == pytest.approx(today.turnover, rel=1e-9)


@pytest.mark.parametrize("module", ENGINE)
def test_it_imports_the_standard_library_alone(module: str) -> None:
    tree = ast.parse((Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8"))
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    own = {f"tests.pipelines.market.oracle.{name}" for name in ENGINE}
    assert {name for name in imported if name not in own and name.split(".")[0] not in sys.stdlib_module_names} == set()
