"""Points, their timestamps and the schema."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor

from policyserver.monitoring import clock
from policyserver.monitoring.points import Points
from policyserver.monitoring.schema import MEASUREMENTS, SERVER, TAGS, TRAIN, FieldType, Measurement
from policyserver.v1 import policy_service_pb2

TAG_VALUES = {"run": "r", "worker": "w"}


def test_timestamps_strictly_increase_whichever_thread_asks() -> None:
    blocks: list[np.ndarray] = []

    def take() -> None:
        for _ in range(200):
            blocks.append(clock.stamp(50))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = np.concatenate(blocks)
    assert len(np.unique(everything)) == 4 * 200 * 50
    assert all((np.diff(block) == 1).all() for block in blocks)


def test_timestamps_go_on_when_the_wall_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = int(clock.stamp(10)[-1])
    monkeypatch.setattr("policyserver.monitoring.clock.time.time_ns", lambda: 0)
    assert clock.stamp(2).tolist() == [before + 1, before + 2]


def test_values_become_their_declared_type_and_what_no_database_stores_becomes_unset() -> None:
    points = Points(
        "step",
        TAG_VALUES,
        {
            "reward": np.array([1, 2], np.float32),
            "price": [3, float("nan")],
            "equity": np.array([np.inf, 5.0]),
            "action": np.array([2, 0], np.int8),
            "bar": [None, 4],
            "fallback": [True, False],
        },
        tag_columns={"symbol": ["A", ""]},
    )
    assert points.field_values("reward") == [1.0, 2.0]
    assert points.field_values("price") == [3.0, None]
    assert points.field_values("equity") == [None, 5.0]
    assert all(type(value) is int for value in points.field_values("action"))
    assert points.field_values("bar") == [None, 4]
    assert points.tag_values("symbol") == ["A", "none"]
    assert points.tag_values("policy") == "none"


@pytest.mark.parametrize(
    ("measurement", "tags", "columns", "said"),
    [
        ("stepp", {}, {"reward": [1.0]}, "expected one of step"),
        ("step", {}, {"rewrd": [1.0]}, "received field 'rewrd'"),
        ("train", {"symbol": "A"}, {"loss": [1.0]}, "received tag 'symbol'"),
        ("step", {}, {}, "at least one field"),
        ("step", {}, {"reward": [1.0], "price": [1.0, 2.0]}, "step.price: expected 1 values"),
    ],
)
def test_what_the_schema_does_not_know_is_refused_by_name(
    measurement: str, tags: dict[str, str], columns: dict[str, list[float]], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        Points(measurement, tags, columns)


def test_a_value_of_another_type_is_refused_with_the_field_named() -> None:
    with pytest.raises(ValueError, match=r"step\.action: expected integer"):
        Points("step", TAG_VALUES, {"action": [1.5]}).field_values("action")
    with pytest.raises(ValueError, match=r"step\.bar: expected integer"):
        Points("step", TAG_VALUES, {"bar": np.array([0.5])}).field_values("bar")


def test_no_tag_and_field_share_a_name_and_every_tag_is_explained() -> None:
    for measurement in MEASUREMENTS.values():
        assert not set(measurement.tags) & set(measurement.types), measurement.name
        assert set(measurement.tags) <= set(TAGS), measurement.name
        assert {"run", "worker"} <= set(measurement.tags), measurement.name
        assert all(field.meaning for field in measurement.fields)


@pytest.mark.parametrize(("declared", "message"), [(SERVER, "GetStatsResponse"), (TRAIN, "TrainingIteration")])
def test_the_servers_measurements_have_the_fields_of_its_messages(declared: Measurement, message: str) -> None:
    kinds = {
        FieldDescriptor.TYPE_UINT64: FieldType.INTEGER,
        FieldDescriptor.TYPE_DOUBLE: FieldType.FLOAT,
        FieldDescriptor.TYPE_STRING: FieldType.STRING,
    }
    fields = policy_service_pb2.DESCRIPTOR.message_types_by_name[message].fields
    assert declared.types == {field.name: kinds[field.type] for field in fields if field.message_type is None}
