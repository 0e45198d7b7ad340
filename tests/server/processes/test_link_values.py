"""What goes over the link between machines comes out as it went in, and what was not made by the other end is refused."""

from __future__ import annotations

import typing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from policyserver.common.errors import WireError
from policyserver.common.server_stats import PolicyFigures
from policyserver.server.processes import link_values
from policyserver.server.processes.link_values import from_value, to_value
from policyserver.server.processes.retirement_state import RetirementOrder, RetirementState
from policyserver.server.processes.rolled_back import RolledBack
from policyserver.server.processes.serving_report import ServingReport
from policyserver.server.processes.shadow_actions import ShadowActions
from policyserver.v1 import driver_link_pb2 as pb

DTYPES = ("float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
ARRAYS = st.sampled_from(DTYPES).flatmap(lambda name: hnp.arrays(np.dtype(name), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)))
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
    | st.binary()
)
KEYS = st.text("abc") | st.integers() | st.tuples(st.text("abc"), st.integers())
CONTENTS = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner), max_leaves=20)


def there_and_back(content: Any) -> Any:
    return from_value(pb.Value.FromString(to_value(content).SerializeToString()))


@given(CONTENTS)
def test_data_comes_out_as_it_went_in(content: Any) -> None:
    back = there_and_back(content)
    assert back == content
    assert repr(back) == repr(content), "of the same types, too"


@given(ARRAYS)
def test_arrays_keep_type_shape_and_bits(array: np.ndarray[Any, Any]) -> None:
    back = there_and_back({"weights": array})["weights"]
    assert isinstance(back, np.ndarray)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()


def records_within(kind: Any) -> set[type]:
    """Return the classes of this project in a type, and in those of their fields."""
    found = {kind} if isinstance(kind, type) and kind.__module__.startswith("policyserver.") else set()
    inner = typing.get_type_hints(kind).values() if found else typing.get_args(kind)
    return found.union(*map(records_within, inner))


@pytest.mark.parametrize("record", [ServingReport, RolledBack, ShadowActions, RetirementOrder, RetirementState])
def test_each_record_that_may_be_in_another_travels(record: type) -> None:
    assert {each.__name__ for each in records_within(record)} <= link_values._RECORDS.keys()


def test_a_report_of_finished_episodes_comes_out_as_it_went_in() -> None:
    report = ServingReport({"boot_id": "a"}, policies=(PolicyFigures("live", 3, 12, 1.5, 4.0), PolicyFigures("live greedy")))
    assert there_and_back(report) == report


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_single_number_of_numpys_stays_one(dtype: str) -> None:
    number = np.dtype(dtype).type(1)
    back = there_and_back(number)
    assert type(back) is type(number)
    assert back == number


def test_arrays_of_any_layout_arrive() -> None:
    array = np.arange(24, dtype=">u2").reshape(4, 6)[::2, ::3].T
    back = there_and_back(array)
    assert back.dtype == np.dtype("uint16")
    np.testing.assert_array_equal(back, array)


def test_the_records_of_both_ends_arrive() -> None:
    actions = ShadowActions(np.ones(2, np.uint64), [("c", "a"), ("c", "b")], np.zeros(2, np.int64), np.zeros((2, 1)), np.ones((2, 1)), 3)
    report = ServingReport({"actions": 5}, {"length": [1]}, 2, {("Step", "OK"): 1}, ((0, 1), 2.5), shadow="s", shadow_actions=[actions])
    report = replace(report, policies=(PolicyFigures("live", 3, 7, 1.5, 2.5), PolicyFigures("s shadow", agreement=0.5)))
    back = there_and_back(report)
    assert isinstance(back, ServingReport)
    assert back.policies == report.policies
    assert isinstance(back.shadow_actions[0], ShadowActions)
    np.testing.assert_array_equal(back.shadow_actions[0].draw_keys, actions.draw_keys)
    assert back.shadow_actions[0].episodes == actions.episodes
    assert (back.calls, back.rows, back.counters, back.episodes) == (report.calls, report.rows, report.counters, report.episodes)
    for record in (RolledBack(4, "ab", 0), RetirementOrder(2, "leave", "ab"), RetirementState(2, "ab", ("10.0.0.1:9900",), 1, 64, 0)):
        assert there_and_back(record) == record


@pytest.mark.parametrize("content", [object(), {1, 2}, print, np.array([object()]), np.array(["text"]), [ValueError("x")]])
def test_what_is_no_data_is_refused_before_it_is_sent(content: Any) -> None:
    with pytest.raises(TypeError, match="driver link: "):
        to_value(content)


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (pb.Value(), "value"),
        (pb.Value(record=pb.Record(name="Popen")), "record.name"),
        (pb.Value(record=pb.Record(name="RolledBack")), "record.fields"),
        (pb.Value(map=pb.Entries(keys=[pb.Value(text="a")])), "map.values"),
        (pb.Value(map=pb.Entries(keys=[pb.Value(list=pb.Values())], values=[pb.Value(none=True)])), "map.keys"),
        (pb.Value(large="1e9"), "large"),
        (pb.Value(large="9" * 5000), "large"),
        (pb.Value(array=pb.Array(dtype="object")), "array.dtype"),
    ],
)
def test_what_is_no_value_is_refused(value: pb.Value, field: str) -> None:
    with pytest.raises(WireError) as refused:
        from_value(value)
    assert refused.value.field in (field, "array")


def test_a_value_that_is_too_deep_is_refused_at_both_ends() -> None:
    content: Any = 1
    for _ in range(40):
        content = [content]
    assert there_and_back(content) == content
    with pytest.raises(TypeError, match="levels"):
        to_value([content])
    with pytest.raises(WireError, match="levels"):
        from_value(pb.Value(list=pb.Values(values=[to_value(content)])))
