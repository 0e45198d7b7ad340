"""Settings are one tree for file, options and Python: what is wrong is named by its key, and what is written out reads back equal."""

from __future__ import annotations

import argparse
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Interval, Le
from hypothesis import given
from hypothesis import strategies as st

from policyserver.common.settings import (
    Config,
    SettingsError,
    add_arguments,
    dump_toml,
    from_arguments,
    from_table,
    known_keys,
    load,
    load_mended,
)
from policyserver.common.settings_declaration import describe, walk


@dataclass(frozen=True)
class Limits(Config):
    """Limits of the episodes."""

    max_open: Annotated[int, Ge(1)] = 20_000
    """Episodes open at once;
    100% of a start beyond it is refused."""

    idle_timeout_s: Annotated[float, Interval(gt=0, lt=1e6)] = 60.0
    """Seconds."""

    warn_after_s: Annotated[float, Le(60)] | None = None

    def _check(self) -> None:
        if self.idle_timeout_s > self.max_open:
            raise ValueError("the two limits contradict each other")
        if self.warn_after_s is not None and self.warn_after_s > self.idle_timeout_s:
            raise ValueError(f"warn_after_s: expected at most idle_timeout_s, {self.idle_timeout_s}, received {self.warn_after_s}")


@dataclass(frozen=True)
class Node(Config):
    """One node."""

    name: str
    threads: int = 1


@dataclass(frozen=True)
class Database(Config):
    """A database."""

    url: str = ""
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Root(Config):
    """All of it."""

    limits: Limits = field(default_factory=Limits)
    overflow: Literal["drop_oldest", "block"] = "drop_oldest"
    """What to do when full."""
    folder: Path | None = None
    token: str | None = "none set"
    seed: int | None = 7
    verbose: bool = False
    hidden: tuple[int, ...] = (64, 64)
    symbols: tuple[str, ...] = ("A", "B")
    span: tuple[float, float] = (0.0, 1.0)
    nodes: tuple[Node, ...] = ()
    database: Database | None = None
    training: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "server.toml"
    path.write_text(text)
    return path


def parse(*options: str) -> Root:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser, Root)
    return load(Root, None, from_arguments(Root, parser.parse_args(options)))


def test_without_a_file_the_defaults_hold() -> None:
    assert load(Root) == Root()


def test_a_file_fills_the_whole_tree(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        overflow = "block"
        folder = "~/runs"
        token = "none"
        seed = "none"
        hidden = [32]
        span = [1, 2]
        [limits]
        max_open = 5
        idle_timeout_s = 3
        [[nodes]]
        name = "policy"
        threads = 4
        [training]
        lr = 1e-3
        model = { cell = 64 }
        [weights]
        a = 1
        """,
    )
    root = load(Root, path)
    assert root == Root(
        limits=Limits(5, 3.0),
        overflow="block",
        folder=Path("~/runs").expanduser(),
        token=None,
        seed=None,
        hidden=(32,),
        span=(1.0, 2.0),
        nodes=(Node("policy", 4),),
        training={"lr": 1e-3, "model": {"cell": 64}},
        weights={"a": 1.0},
    )
    assert isinstance(root.limits.idle_timeout_s, float)
    assert isinstance(root.weights["a"], float)


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        ("[limits]\nmax_opn = 3", "limits.max_opn", "unknown key; did you mean 'limits.max_open'?"),
        ("max_open = 3", "max_open", "did you mean 'limits.max_open'?"),
        ("zzz = 3", "zzz", "unknown key; known here: limits, overflow"),
        ('[limits]\nmax_open = "3"', "limits.max_open", "expected int, received '3' (a string)"),
        ("[limits]\nmax_open = 3.5", "limits.max_open", "expected int, received 3.5 (a float)"),
        ("[limits]\nmax_open = true", "limits.max_open", "expected int, received True (a boolean)"),
        ("[limits]\nidle_timeout_s = true", "limits.idle_timeout_s", "expected float"),
        ("verbose = 1", "verbose", "expected bool, received 1 (an integer)"),
        ("limits = 3", "limits", "expected table, received 3"),
        ('overflow = "drop"', "overflow", "expected drop_oldest|block, received 'drop'"),
        ("folder = 3", "folder", "expected path or none, received 3"),
        ('hidden = [1, "2"]', "hidden[1]", "expected int, received '2'"),
        ("span = [1.0]", "span", "expected [float, float], received [1.0] (an array)"),
        ("[[nodes]]\nthreads = 1", "nodes[0].name", "expected a value, received none"),
        ('[weights]\na = "x"', "weights.a", "expected float"),
        ("[limits]\nmax_open = 0", "limits.max_open", "expected at least 1, received 0"),
        ("[limits]\nmax_open = 1", "limits", "the two limits contradict each other"),
        ("[limits]\nidle_timeout_s = 0", "limits.idle_timeout_s", "expected more than 0 and less than 1e+06, received 0"),
        ("[limits]\nidle_timeout_s = nan", "limits.idle_timeout_s", "expected a finite number, received nan"),
        ("[limits]\nwarn_after_s = 61", "limits.warn_after_s", "expected at most 60 or none, received 61"),
        ("[limits]\nwarn_after_s = 'x'", "limits.warn_after_s", "expected float or none, received 'x' (a string)"),
        ("[limits]\nidle_timeout_s = 1\nwarn_after_s = 2", "limits.warn_after_s", "expected at most idle_timeout_s, 1.0, received 2"),
        ("[limts]\nmax_open = 1", "limts", "did you mean 'limits'?"),
        ("[[nodes]]\nname = 'a'\nthread = 1", "nodes[0].thread", "unknown key; known here: nodes[0].name, nodes[0].threads"),
    ],
)
def test_a_wrong_entry_names_file_key_expected_and_received(tmp_path: Path, text: str, key: str, says: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load(Root, path)
    assert caught.value.key == key
    assert says in caught.value.problem
    assert str(caught.value).startswith(f"{path}: {key}: ")


def test_a_file_that_is_not_there_or_not_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml: expected a readable file: No such file"):
        load(Root, tmp_path / "nowhere.toml")
    with pytest.raises(SettingsError, match=r"server\.toml: expected TOML: Invalid value"):
        load(Root, write(tmp_path, "max_open ="))


def test_all_faults_are_told_and_the_rest_is_as_it_was_given(tmp_path: Path) -> None:
    text = """
        seed = "x"
        folder = "kept"
        overflw = "block"
        zzz = 3
        hidden = [1, "2"]
        [limits]
        max_open = 0
        warn_after_s = 5
        [[nodes]]
        threads = 1
        [training]
        lr = 1.0
        """
    found = load_mended(Root, write(tmp_path, text), {"weights": {"a": "x", "b": 2.0}, "span": [1.0]})
    assert {(fault.key, fault.source) for fault in found.faults} == {
        *((key, str(tmp_path / "server.toml")) for key in ("seed", "overflw", "zzz", "hidden[1]", "limits.max_open", "nodes[0].name")),
        *((key, "option") for key in ("weights.a", "span")),
    }
    assert found.settings == Root(limits=Limits(warn_after_s=5), folder=Path("kept"), training={"lr": 1.0}, weights={"b": 2.0})
    assert {key for key in known_keys(Root) if found.is_replaced(key)} == {
        "seed", "overflow", "hidden", "limits.max_open", "nodes", "weights", "span",
    }  # fmt: skip
    assert found.is_replaced("limits")
    assert not found.is_replaced("limits.warn_after_s")


def test_settings_that_contradict_each_other_are_told_once(tmp_path: Path) -> None:
    found = load_mended(Root, write(tmp_path, "[limits]\nmax_open = 1\n[training]\nlr = 1.0"))
    assert [fault.key for fault in found.faults] == ["limits"]
    assert found.settings == Root(training={"lr": 1.0})


@pytest.mark.parametrize(("name", "says"), [("nowhere.toml", "No such file"), ("server.toml", "expected TOML")])
def test_of_a_file_that_cannot_be_read_only_options_are_known(tmp_path: Path, name: str, says: str) -> None:
    write(tmp_path, "max_open =")
    given: dict[str, Any] = {"limits.max_open": 900, "seed": "x"}
    found = load_mended(Root, tmp_path / name, given)
    assert [says in str(fault) for fault in found.faults] == [True, False]
    assert found.faults[1].key == "seed"
    assert found.settings == Root(limits=Limits(900))
    assert not found.is_replaced("limits.max_open")
    assert found.is_replaced("seed")
    assert found.is_replaced("overflow")
    assert given == {"limits.max_open": 900, "seed": "x"}


def test_overrides_win_over_the_file_and_reach_into_free_tables(tmp_path: Path) -> None:
    path = write(tmp_path, "[limits]\nmax_open = 5\nidle_timeout_s = 1.0\n[training]\nlr = 1.0")
    root = load(Root, path, {"limits.max_open": 9, "training.gamma": 0.9, "training.model.cell": 8})
    assert root.limits == Limits(9, 1.0)
    assert root.training == {"lr": 1.0, "gamma": 0.9, "model": {"cell": 8}}


def test_a_wrong_override_is_blamed_on_the_option_not_on_the_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load(Root, write(tmp_path, "seed = 1"), {"limits.max_open": 0})
    assert caught.value.source == "option"
    with pytest.raises(SettingsError, match="unknown key"):
        load(Root, None, {"limits.nothing": 0})


def test_the_error_survives_pickling() -> None:
    error = SettingsError("a.b", "file.toml", "expected int, received 'x'")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.key, copy.source) == (str(error), "a.b", "file.toml")


def test_options_set_every_kind_of_field() -> None:
    root = parse(
        *("--limits.max_open", "70", "--overflow", "block", "--folder", "runs", "--token", "none", "--seed", "none"),
        *("--database.url", "http://db:8086"),
        *("--verbose", "true", "--hidden", "32,16", "--symbols", "X,Y", "--span", "[0.5, 2]", "--training", "{lr = 0.1}"),
    )
    assert root == Root(
        limits=Limits(70),
        overflow="block",
        folder=Path("runs"),
        token=None,
        seed=None,
        verbose=True,
        hidden=(32, 16),
        symbols=("X", "Y"),
        span=(0.5, 2.0),
        database=Database("http://db:8086"),
        training={"lr": 0.1},
    )


@pytest.mark.parametrize("options", [("--limits.max_open", "x"), ("--verbose", "maybe"), ("--hidden", "1,b"), ("--overflow", "drop")])
def test_a_wrong_option_is_refused_by_the_parser(options: tuple[str, str]) -> None:
    with pytest.raises(argparse.ArgumentError, match=f"argument {options[0]}: expected .*, received"):
        parse(*options)


def test_help_shows_the_docstring_and_the_default() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, Root)
    text = " ".join(parser.format_help().split())
    assert "Episodes open at once; 100% of a start beyond it is refused. (at least 1; default: 20000)" in text
    assert "[limits]: Limits of the episodes." in text
    assert "--nodes" not in text


def test_python_arguments_are_converted_and_checked_as_a_file_is() -> None:
    made = Root(limits=Limits(idle_timeout_s=3), folder="~/runs", hidden=[1, 2], nodes=[{"name": "a"}])  # type: ignore[arg-type]
    assert made == Root(limits=Limits(idle_timeout_s=3.0), folder=Path("~/runs").expanduser(), hidden=(1, 2), nodes=(Node("a"),))
    with pytest.raises(SettingsError, match=r"^argument of Limits: max_open: expected at least 1, received 0$"):
        Limits(max_open=0)
    with pytest.raises(SettingsError, match=r"^argument of Limits: the two limits contradict each other$"):
        Limits(max_open=1)
    with pytest.raises(SettingsError, match=r"^argument of Root: hidden\[1\]: expected int, received 'x' \(a string\)$"):
        Root(hidden=(1, "x"))  # type: ignore[arg-type]


def test_a_table_read_elsewhere_is_checked_and_its_source_named() -> None:
    assert from_table(Limits, {"max_open": 70}, "the environment") == Limits(70)
    with pytest.raises(SettingsError, match=r"^the environment: max_open: expected at least 1, received 0$"):
        from_table(Limits, {"max_open": 0}, "the environment")


def test_a_secret_is_in_no_message() -> None:
    with pytest.raises(SettingsError, match=r"^option: database\.password: expected str\|none, received a value that is not shown here$"):
        load(Root, None, {"database.password": 12345})


def test_what_is_declared_can_be_listed_for_a_reference() -> None:
    declared = dict(walk(Root))
    assert list(declared)[:5] == ["limits", "limits.max_open", "limits.idle_timeout_s", "limits.warn_after_s", "overflow"]
    assert (declared["limits"].section, declared["limits"].doc) == (Limits, "Limits of the episodes.")
    max_open, warn_after_s = declared["limits.max_open"], declared["limits.warn_after_s"]
    assert (describe(max_open.hint), max_open.default, max_open.bounds) == ("int", 20_000, "at least 1")
    assert max_open.doc == "Episodes open at once; 100% of a start beyond it is refused."
    assert (describe(warn_after_s.hint), warn_after_s.default, warn_after_s.bounds) == ("float|none", None, "at most 60")
    assert describe(declared["overflow"].hint) == "drop_oldest|block"
    assert dict(walk(Node))["name"].is_required


def test_known_keys_are_the_leaves() -> None:
    assert known_keys(Root)[:4] == ["limits.max_open", "limits.idle_timeout_s", "limits.warn_after_s", "overflow"]


def test_the_documented_default_file_reads_back_to_the_defaults(tmp_path: Path) -> None:
    text = dump_toml(Root(), comments=True)
    assert "# Episodes open at once; 100% of a start beyond it is refused. (at least 1)\nmax_open = 20000" in text
    assert load(Root, write(tmp_path, text)) == Root()


def test_a_setting_that_is_unset_by_default_stands_in_the_documented_file_as_a_comment(tmp_path: Path) -> None:
    text = dump_toml(Root(), comments=True)
    assert '# folder = "none"\n' in text
    assert "folder" not in dump_toml(Root())
    assert load(Root, write(tmp_path, text.replace('# folder = "none"', 'folder = "none"'))) == Root()


def test_none_inside_a_free_table_cannot_be_written() -> None:
    with pytest.raises(ValueError, match=r"training\.model: expected a value that TOML can hold, received None"):
        dump_toml(Root(training={"model": None}))


scalars = st.integers(-(2**62), 2**62) | st.floats(allow_nan=False) | st.booleans() | st.text()
free = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8)


@pytest.mark.long
@given(training=st.dictionaries(st.text(), free, max_size=4), symbols=st.lists(st.text(), max_size=3), seed=st.none() | st.integers(0, 9))
def test_what_is_written_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, training: dict[str, Any], symbols: list[str], seed: int | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "round.toml"
    root = Root(training=training, symbols=tuple(symbols), seed=seed, nodes=(Node("a"), Node("b", 2)))
    path.write_text(dump_toml(root), encoding="utf-8", newline="")
    assert load(Root, path) == root
