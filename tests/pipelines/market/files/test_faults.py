"""Faults: each kind is found where it is, counted, and refused, dropped or kept as the policy says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from policyserver.pipelines.market.calendars import make_calendar
from policyserver.pipelines.market.files.dialect import Dialect
from policyserver.pipelines.market.files.faults import FaultPolicies, FileFaultError, FileReport
from policyserver.pipelines.market.files.reader import Recording, inspect_file, read_file

HEADER = "time,open,high,low,close,volume"
START = np.datetime64("2024-01-02T10:00", "s")


def rows(n: int = 40, seed: int = 1) -> list[list[str]]:
    """Rows of a file without a fault, one a minute."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.001, n)))
    opened = np.append(100.0, close[:-1])
    columns = (opened, np.maximum(opened, close) * 1.0001, np.minimum(opened, close) * 0.9999, close, rng.integers(1, 9, n))
    return [[str(START + 60 * i), *(f"{column[i]:.4f}" for column in columns)] for i in range(n)]


def write(folder: Path, table: list[list[str]]) -> Path:
    path = folder / "x.csv"
    path.write_text("\n".join([HEADER, *(",".join(cells) for cells in table)]) + "\n")
    return path


def look(folder: Path, table: list[list[str]], policies: FaultPolicies | None = None, calendar: str = "") -> Recording:
    (recording,) = inspect_file(write(folder, table), policies=policies, calendar=make_calendar(calendar) if calendar else None)
    return recording


def kinds(report: FileReport) -> dict[str, tuple[int, list[int]]]:
    return {found.kind: (found.count, [example.line for example in found.examples]) for found in report.findings}


def changed(row: int, **cells: str) -> list[list[str]]:
    table = rows()
    for name, text in cells.items():
        table[row][HEADER.split(",").index(name)] = text
    return table


def test_a_file_without_a_fault_has_none(tmp_path: Path) -> None:
    recording = look(tmp_path, rows())
    assert recording.report.findings == ()
    assert recording.report.is_clean
    assert (recording.report.n_rows, len(recording.bars), recording.report.interval_ns) == (40, 40, 60 * 10**9)


FAULTS: dict[str, list[list[str]]] = {
    "malformed": changed(10, high="12x"),
    "missing": changed(10, low=""),
    "price": changed(10, open="-3", low="-3"),
    "inconsistent": changed(10, high="1"),
    "volume": changed(10, volume="-1"),
    "zero_volume": changed(10, volume="0"),
    "disorder": changed(10, time="2024-01-02T10:03:30"),
    "conflict": changed(10, time="2024-01-02T10:09:00"),
    "spike": changed(10, close="200", high="200"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_found_at_its_line_and_refused_dropped_or_kept(kind: str, tmp_path: Path) -> None:
    table = FAULTS[kind]
    found = kinds(look(tmp_path, table).report)
    assert found.pop(kind) == (1, [12]), "the header and eleven rows"
    assert set(found) <= {"gap"}
    for policy in ("refuse", "drop", "keep"):
        try:
            policies = FaultPolicies(**{kind: policy})  # type: ignore[arg-type]
        except ValueError:
            assert policy == "keep", "only to keep a row that is no bar is senseless"
            continue
        recording = look(tmp_path, table, policies)
        assert recording.report.is_clean == (policy == "keep")
        assert len(recording.bars) == (40 if policy == "keep" else 39)
        if policy == "refuse":
            with pytest.raises(FileFaultError, match=r"x\.csv, line 12"):
                read_file(tmp_path / "x.csv", policies=policies)
        else:
            assert len(read_file(tmp_path / "x.csv", policies=policies)[0].bars) == len(recording.bars)
        assert np.all(np.diff(recording.bars.time_ns) > 0)


def test_a_row_out_of_order_that_is_kept_is_sorted_into_its_place(tmp_path: Path) -> None:
    table = FAULTS["disorder"]
    kept = look(tmp_path, table, FaultPolicies(disorder="keep"))
    moved = int(np.flatnonzero(kept.bars.time_ns == np.datetime64("2024-01-02T10:03:30", "ns").astype(int))[0])
    assert moved == 4
    assert kept.bars.close[moved] == float(table[10][4])


def test_a_row_that_is_there_twice_is_no_conflict(tmp_path: Path) -> None:
    table = rows()
    found = kinds(look(tmp_path, [*table[:11], table[10], *table[11:]]).report)
    assert found == {"duplicate": (1, [13])}
    assert len(look(tmp_path, [*table[:11], table[10], *table[11:]], FaultPolicies(duplicate="drop")).bars) == 40


def test_gaps_are_listed_and_refused_only_if_asked_for(tmp_path: Path) -> None:
    table = [*rows()[:10], *rows()[15:]]
    recording = look(tmp_path, table)
    assert kinds(recording.report) == {"gap": (1, [12])}
    assert recording.report.is_clean
    assert "6min after 2024-01-02T10:09" in recording.report.text()
    assert (
        look(tmp_path, table, FaultPolicies(gap="refuse"))
        .report.refusal()
        .endswith('line 12: 6min after 2024-01-02T10:09; faults.gap = "keep" takes them as they are')
    )


@pytest.mark.long
@pytest.mark.parametrize(("day", "n_gaps"), [("2024-01-03", 1), ("2024-01-04", 2)])
def test_with_a_calendar_a_gap_is_a_bar_that_is_not_there_while_the_market_is_open(day: str, n_gaps: int, tmp_path: Path) -> None:
    """New York: the last bar of 2 January and the first of the next session are no gap; a session left out is one."""
    first = np.arange("2024-01-02T20:51", "2024-01-02T21:01", dtype="M8[m]")
    second = np.arange(f"{day}T14:31", f"{day}T14:41", dtype="M8[m]")
    table = rows(19)
    for cells, moment in zip(table, np.delete(np.concatenate([first, second]), 3), strict=True):
        cells[0] = str(moment)
    found = kinds(look(tmp_path, table, calendar="XNYS").report)
    assert found["gap"][0] == n_gaps
    assert found["gap"][1][0] == 5
    assert "closed" not in found


@pytest.mark.long
def test_with_a_calendar_a_bar_on_a_holiday_is_found(tmp_path: Path) -> None:
    table = rows(5)
    for cells, day in zip(table, ("2024-07-02", "2024-07-03", "2024-07-04", "2024-07-05", "2024-07-09"), strict=True):
        cells[0] = day
    found = kinds(look(tmp_path, table, calendar="XNYS").report)
    assert found == {"closed": (1, [4]), "gap": (1, [6])}
    assert len(look(tmp_path, table, FaultPolicies(closed="drop"), "XNYS").bars) == 4


@pytest.mark.parametrize(("ratio", "kind"), [(2.0, "split"), (4.0, "split"), (1.5, "split"), (0.1, "split"), (1.23, "jump"), (0.8, "jump")])
def test_a_jump_by_a_splits_ratio_is_told_from_others(ratio: float, kind: str, tmp_path: Path) -> None:
    table = rows()
    for cells in table[20:]:
        cells[1:5] = [f"{float(text) / ratio:.4f}" for text in cells[1:5]]
    recording = look(tmp_path, table)
    assert kinds(recording.report) == {kind: (1, [22])}
    assert recording.report.is_clean == (kind == "jump"), "a split that is not announced changes what returns are"


def test_a_split_that_the_file_announces_is_none(tmp_path: Path) -> None:
    table = rows()
    for i, cells in enumerate(table):
        cells[1:5] = [f"{float(text) / (2 if i >= 20 else 1):.4f}" for text in cells[1:5]]
        cells.append("2" if i == 20 else "0")
    path = tmp_path / "x.csv"
    path.write_text("\n".join([f"{HEADER},split", *(",".join(cells) for cells in table)]))
    (recording,) = inspect_file(path, Dialect(split="split"))
    assert kinds(recording.report) == {"jump": (1, [22])}


def test_the_local_hour_that_is_there_twice_is_told_by_the_rows_and_refused_where_they_don_t_tell(tmp_path: Path) -> None:
    berlin = Dialect(time_zone="Europe/Berlin")
    night = ["01:30", "02:00", "02:30", "02:00", "02:30", "03:00"]
    path = tmp_path / "x.csv"
    path.write_text("\n".join([HEADER, *(f"2023-10-29 {clock},1,1,1,1,1" for clock in night)]))
    (recording,) = inspect_file(path, berlin)
    assert recording.report.findings == ()
    assert np.diff(recording.bars.time_ns).tolist() == [30 * 60 * 10**9] * 5
    path.write_text("\n".join([HEADER, *(f"2023-10-29 {clock},1,1,1,1,1" for clock in ("01:30", "02:30", "03:00"))]))
    with pytest.raises(FileFaultError, match=r"line 3: expected a time of Europe/Berlin that is there once, received one of two"):
        read_file(path, berlin)
    path.write_text("\n".join([HEADER, *(f"2023-03-26 {clock},1,1,1,1,1" for clock in ("01:30", "02:30", "03:00"))]))
    with pytest.raises(FileFaultError, match=r"line 3: expected a time of Europe/Berlin, received one that its clocks skip"):
        read_file(path, berlin)


def test_times_with_and_without_a_zone_in_one_file_are_refused_unless_the_zone_is_utc(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("\n".join([HEADER, "2024-01-02 10:00,1,1,1,1,1", "2024-01-02T10:01Z,1,1,1,1,1"]))
    assert len(read_file(path)[0].bars) == 2
    with pytest.raises(FileFaultError, match="line 3: expected times that all name their zone, or none of them"):
        read_file(path, Dialect(time_zone="America/New_York"))


def test_a_report_says_what_was_taken_for_granted(tmp_path: Path) -> None:
    text = look(tmp_path, rows()).report.text()
    assert "taken for UTC" in text
    assert "dialect plain" in text
    assert "40 bars of 40 rows" in text
    assert "2024-01-02T10:00:00Z to 2024-01-02T10:39:00Z, bars of 1min" in text


def test_of_many_faults_the_first_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    table = rows()
    for cells in table[5:25]:
        cells[2] = "?"
    recording = look(tmp_path, table)
    assert kinds(recording.report) == {"malformed": (20, [7, 8, 9, 10, 11]), "gap": (1, [27])}
    assert "(and 19 more: policy-pipeline check-data lists them)" in recording.report.refusal()
