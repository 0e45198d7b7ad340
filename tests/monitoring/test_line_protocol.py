"""Line protocol: what is encoded comes back the same from a real InfluxDB."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.monitoring.influx.config import InfluxConfig
from policyserver.monitoring.influx.sink import InfluxSink
from policyserver.monitoring.line_protocol import encode
from policyserver.monitoring.points import Points
from tests.services import InfluxServer

TIMES = np.array([1_700_000_000_000_000_001, 1_700_000_000_000_000_002])


def test_a_line_has_its_tags_in_schema_order_and_typed_fields() -> None:
    points = Points(
        "step",
        {"worker": "w", "run": "r 1"},
        {"reward": [1, -0.5], "action": np.array([0, 2]), "fallback": [True, False], "episode": ["a", 'b"c']},
        TIMES,
        {"symbol": ["A,B", "100%"]},
    )
    start = r"step,run=r\ 1,policy=none,process=none,symbol="
    assert encode(points).decode().splitlines() == [
        start + r'A\,B,worker=w reward=1.0,action=0i,fallback=true,episode="a" 1700000000000000001',
        start + r'100%,worker=w reward=-0.5,action=2i,fallback=false,episode="b\"c" 1700000000000000002',
    ]


def test_unset_fields_are_left_out_and_a_point_of_none_has_no_line() -> None:
    points = Points("step", {}, {"reward": [1.0, float("nan")], "price": [None, 2.0]}, TIMES)
    first, second = encode(points).decode().splitlines()
    assert " reward=1.0 " in first
    assert " price=2.0 " in second
    points = Points("step", {}, {"bar": [1, 2], "reward": np.array([np.nan, 0.5])}, TIMES)
    first, second = encode(points).decode().splitlines()
    assert " bar=1i " in first
    assert " bar=2i,reward=0.5 " in second
    assert encode(Points("step", {}, {"reward": [math.nan, 3.0]}, TIMES)).count(b"\n") == 1
    assert encode(Points("step", {}, {"reward": [math.inf, None]}, TIMES)) == b""
    assert encode(Points("step", {}, {"reward": []})) == b""


@pytest.mark.parametrize(("field", "value"), [("action", "sell"), ("bar", 2**63), ("reward", "much"), ("bar", 0.5)])
def test_a_value_of_another_type_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"step.{field}: expected"):
        encode(Points("step", {}, {field: [value]}))


@pytest.mark.process
def test_odd_values_come_back_exactly(influx: InfluxServer, tmp_path: Path) -> None:
    influx.start()
    texts = ["", "plain", 'quote"', "back\\slash", "end\\", "comma,equals= space", "é漢🎲", "%d %s", "tab\there", "{'a': [1]}"]
    floats = [0.1, -0.0, 1e-300, 1.7976931348623157e308, 5e-324, 1e16, 123456789.123456789, 1 / 3, -2.5e-7, 3.0]
    integers = [0, -1, 2**63 - 1, -(2**63), 10**15, 7, 8, 9, 10, 11]
    tags = ["a", "b c", "d,e", "f=g", "h%i", "j|k", "é漢🎲", '"l"', "m'n", "o.p"]
    points = Points("step", {"run": "r"}, {"episode": texts, "reward": floats, "bar": integers}, tag_columns={"symbol": tags})
    sink = InfluxSink(InfluxConfig(influx.url, influx.bucket, tmp_path / "spool", gather_s=0.01))
    sink.write(points)
    assert sink.flush(60.0)
    assert sink.statistics().dead_lettered == 0
    rows = sorted(influx.query("SELECT episode, reward, bar, symbol FROM step"), key=lambda row: int(row["time"]))
    assert [row["time"] for row in rows] == points.times_ns.tolist()
    assert [row["episode"] for row in rows] == texts
    assert [row["reward"] for row in rows] == floats
    assert [row["bar"] for row in rows] == integers
    assert [row["symbol"] for row in rows] == tags
    sink.close(60.0)


def test_what_the_protocol_cannot_express_is_replaced() -> None:
    line = encode(Points("step", {"run": "a\nb\\"}, {"episode": ["c\nd\r"]}, TIMES[:1])).decode()
    assert line.startswith(r"step,run=a\ b/,")
    assert ' episode="c d " ' in line
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"reward": 1, "price": None, "equity": math.nan, "action": np.int8(2), "fallback": np.True_, "episode": 'a "b"\\\n'},
        {"reward": np.float32(0.1), "bar": 3.0, "fallback": 0, "episode": "é\ud800"},
        {"reward": "1.5", "bar": True, "action": -(2**63), "fallback": None, "episode": 17},
        {"reward": math.inf, "bar": None},
    ],
)
def test_a_single_point_is_encoded_as_it_would_be_among_others(fields: dict[str, Any]) -> None:
    tags = {"run": "r 1,é\ud800", "worker": "w\\"}
    pair = Points("step", tags, {name: [value, value] for name, value in fields.items()}, TIMES, {"symbol": ["", ""]})
    single = Points("step", tags, {name: [value] for name, value in fields.items()}, TIMES[:1], {"symbol": [""]})
    lines = encode(pair).splitlines(keepends=True)
    assert encode(single) == (lines[0] if lines else b"")
