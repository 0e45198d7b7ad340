"""A policy's file is a stranger's input: what is wrong in it is named, and nothing in it is run, unpickled or taken at its word."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyserver.client import LocalPolicy, PolicyFileError
from tests.client.policy_files import mlp, write

Change = Callable[[dict[str, Any], dict[str, Any]], Any]


def load(tmp_path: Path, change: Change) -> LocalPolicy:
    description, arrays = mlp()
    change(description, arrays)
    return LocalPolicy.load(write(tmp_path / "policy.npz", json.dumps(description), arrays))


def dense(description: dict[str, Any], number: int = 0) -> dict[str, Any]:
    layer: dict[str, Any] = description["net"]["encoder"][number]["dense"]
    return layer


WRONG: dict[str, tuple[Change, str]] = {
    "version": (lambda d, a: d.update(format_version=2), "format_version: expected 1, received 2"),
    "field": (lambda d, a: d.update(nett={}), 'no field named "nett"'),
    "type": (lambda d, a: d.update(epsilon="many"), "epsilon"),
    "enum": (lambda d, a: d.update(distribution="NORMAL"), "distribution"),
    "enum's number": (lambda d, a: dense(d).update(activation=77), "activation"),
    "space": (lambda d, a: d.update(observation_space={}), "observation_space.kind"),
    "deep space": (lambda d, a: d.update(observation_space=nested(40)), "observation_space"),
    "large space": (lambda d, a: d["observation_space"]["box"].update(shape=[2**31, 2**31]), "observation_space"),
    "no head": (lambda d, a: d["net"].pop("head"), "net.head: expected one layer"),
    "no array": (lambda d, a: a.pop("0.weight"), "net.encoder\\[0\\].weight: expected the name of an array"),
    "one more array": (lambda d, a: a.update(x=np.zeros(3, np.float32)), "expected arrays that the description names, received 'x'"),
    "shape": (lambda d, a: a.update({"1.weight": np.zeros((3, 64), np.float32)}), r"expected a weight for inputs of shape \[64\]"),
    "axes": (lambda d, a: a.update({"1.weight": np.zeros(64, np.float32)}), r"net.encoder\[1\].weight: expected float32\[any, any\]"),
    "empty": (lambda d, a: a.update({"0.weight": np.zeros((0, 64), np.float32)}), "0, 64"),
    "dtype": (lambda d, a: a.update({"1.bias": np.zeros(64)}), r"net.encoder\[1\].bias: expected float32\[64\], received float64"),
    "objects": (lambda d, a: a.update({"1.bias": np.array([{}], object)}), "expected float32, float64 or uint8"),
    "NaN": (lambda d, a: a["2.bias"].fill(np.nan), r"net.head\[0\].bias: expected finite numbers"),
    "outputs": (lambda d, a: d.update(action_space={"discrete": {"n": "4"}}), "net: expected 4 outputs"),
    "many actions": (lambda d, a: d.update(action_space={"discrete": {"n": str(2**62)}}), f"net: expected {2**62} outputs"),
    "distribution": (lambda d, a: d.update(distribution="DISTRIBUTION_GAUSSIAN"), "distribution: expected one of actions of Discrete"),
    "action space": (lambda d, a: d.update(action_space={"tuple": {"spaces": []}}), "net: action space: expected a Box"),
    "epsilon": (lambda d, a: d.update(epsilon=1.5), "epsilon: expected a number from 0 to 1"),
    "bound": (lambda d, a: d["net"].update(log_std_bound="NaN"), "net.log_std_bound"),
    "layers": (lambda d, a: d["net"].update(encoder=[d["net"]["encoder"][1]] * 1000), "net.encoder: expected at most 256 layers"),
    "kind of layer": (lambda d, a: d["net"]["encoder"].insert(0, {}), r"net.encoder\[0\].kind"),
    "flattened vector": (lambda d, a: d["net"]["encoder"].insert(0, {"flatten_image": {}}), "expected an image to flatten"),
    "one-hot code": (
        lambda d, a: d.update(observation_space={"discrete": {"n": str(2**40)}}, rewrites=[{"flatten": {}}]),
        r"rewrites\[0\]: expected at most",
    ),
    "frames": (lambda d, a: d.update(rewrites=[{"stack_frames": {"num_frames": 4}}]), r"rewrites\[0\]: expected stacked images"),
    "bytes": (lambda d, a: d.update(rewrites=[{"scale_images": {}}]), r"rewrites\[0\]: expected one array of uint8"),
    "mean": (lambda d, a: d.update(rewrites=[{"mean_std": {"mean": "0.bias"}}]), r"rewrites\[0\].mean: expected float64\[10\]"),
    "LSTM": (lambda d, a: d["net"].update(lstm={"input_weight": "0.weight"}), "net.lstm.output_weight"),
}


def nested(depth: int) -> dict[str, Any]:
    space: dict[str, Any] = {"discrete": {"n": "2"}}
    for _ in range(depth):
        space = {"tuple": {"spaces": [space]}}
    return space


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_in_a_description_is_named(name: str, tmp_path: Path) -> None:
    change, message = WRONG[name]
    with pytest.raises(PolicyFileError, match=message):
        load(tmp_path, change)


@pytest.mark.long
def test_a_convolution_may_not_take_more_memory_than_an_observation_and_its_weights(tmp_path: Path) -> None:
    def widen(description: dict[str, Any], arrays: dict[str, Any]) -> None:
        description["observation_space"]["box"]["shape"] = [3000, 3000, 1]
        arrays["c"] = np.zeros((1, 1, 2000, 2000), np.float32)
        convolution = {"weight": "c", "stride": [1, 1], "padding": [0, 0, 0, 0]}
        description["net"]["encoder"][:0] = [{"convolution": convolution}, {"flatten_image": {}}]

    with pytest.raises(PolicyFileError, match="products of a convolution"):
        load(tmp_path, widen)


def test_a_header_that_claims_more_than_the_file_holds_allocates_nothing(tmp_path: Path) -> None:
    content = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (2**40, 2**10)}
    np.lib.format.write_array_header_1_0(content, header)
    path = tmp_path / "policy.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("description.npy", content.getvalue())
    tracemalloc.start()
    try:
        with pytest.raises(PolicyFileError, match="expected 4503599627370496 bytes"):
            LocalPolicy.load(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_file_that_would_unfold_is_refused(tmp_path: Path) -> None:
    description, arrays = mlp()
    np.savez_compressed(tmp_path / "policy.npz", description=np.frombuffer(json.dumps(description).encode(), np.uint8), **arrays)
    with pytest.raises(PolicyFileError, match="without compression"):
        LocalPolicy.load(tmp_path / "policy.npz")


def test_a_file_larger_than_is_allowed_is_not_read(tmp_path: Path) -> None:
    description, arrays = mlp()
    path = write(tmp_path / "policy.npz", json.dumps(description), arrays)
    with pytest.raises(PolicyFileError, match="more than the 1000 that max_bytes allows"):
        LocalPolicy.load(path, max_bytes=1000)
    assert LocalPolicy.load(path, max_bytes=path.stat().st_size)


@pytest.mark.parametrize("content", [b"", b"PK", b"\0" * 1000, b"PK\x05\x06" + b"\0" * 18, json.dumps({}).encode()])
def test_what_is_no_such_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "policy.npz").write_bytes(content)
    with pytest.raises(PolicyFileError, match=r"policy\.npz"):
        LocalPolicy.load(tmp_path / "policy.npz")


def test_a_directory_of_any_size_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "policy.npz", "{}", {})
    whole = bytearray(path.read_bytes())
    struct.pack_into("<L", whole, len(whole) - 10, 2**31)
    path.write_bytes(whole)
    with pytest.raises(PolicyFileError, match=r"end as an \.npz file"):
        LocalPolicy.load(path)


@pytest.mark.long
@given(data=st.data())
def test_a_damaged_file_is_a_policy_or_an_error_that_says_so(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    description, arrays = mlp()
    path = write(tmp_path_factory.getbasetemp() / "damaged.npz", json.dumps(description), arrays)
    content = bytearray(path.read_bytes())
    near_the_end = st.integers(max(len(content) - 1000, 0), len(content) - 1)
    for place in data.draw(st.lists(st.integers(0, len(content) - 1) | st.integers(0, 200) | near_the_end, min_size=1, max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))])
    try:
        LocalPolicy.load(path).act(np.zeros(10, np.float32))
    except PolicyFileError as error:
        if str(path) not in str(error):
            raise


@pytest.mark.process
def test_neither_ray_nor_torch_nor_pickle_is_needed(tmp_path: Path) -> None:
    description, arrays = mlp()
    path = write(tmp_path / "policy.npz", json.dumps(description), arrays)
    code = f"""
import pickle, sys
import numpy as np
from policyserver.client import LocalPolicy
def refuse(*_, **__): raise AssertionError("pickle was used")
pickle.load = pickle.loads = pickle.Unpickler = refuse
policy = LocalPolicy.load({str(path)!r})
policy.act(np.zeros(10, np.float32))
print(sorted({{"ray", "torch", "policyserver.server"}} & set(sys.modules)))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False)
    assert ended.stdout == "[]\n", ended.stderr
