"""`policy-pipeline check-data`: a report of each file, exit 1 on a fault, no pandas, and its promised speed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from policyserver.pipelines.__main__ import main

SAMPLES = Path(__file__).parent / "market" / "files" / "samples"

MEASURED = """
import resource, sys, time
from pathlib import Path
from policyserver.pipelines.check_data import check_data
from policyserver.pipelines.market.files.config import FilesConfig
from policyserver.common.settings import from_table
import ast
reports = list(check_data(Path(sys.argv[1]), from_table(FilesConfig, ast.literal_eval(sys.argv[2]), "test")))
assert [report.n_bars for report in reports] == [1_000_000], reports
assert all(report.is_clean for report in reports), reports
assert not {"pandas", "exchange_calendars", "grpc", "torch", "ray"} & sys.modules.keys()
usage = resource.getrusage(resource.RUSAGE_SELF)
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
"""


def test_a_clean_file_is_told_with_dialect_span_and_length(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-data", str(SAMPLES / "binance_ms.csv"), str(SAMPLES / "yfinance_two.csv")]) == 0
    printed = capsys.readouterr().out
    assert "dialect binance, 8 bars of 8 rows" in printed
    assert "2020-09-30T23:59:00Z to 2020-10-01T00:06:00Z, bars of 1min" in printed
    assert "MSFT, dialect yfinance" in printed
    assert "TSLA, dialect yfinance, 9 bars" in printed


def test_a_fault_is_told_with_its_line_and_is_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-data", str(SAMPLES / "yahoo.csv")]) == 1
    assert "FAULT     missing: 1 (refuse)\n            line 5, column open, high, low, close: expected a finite number, received none" in (
        capsys.readouterr().out
    )


def test_a_file_that_can_t_be_read_is_told_and_the_others_are_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.csv").write_text("name\nvalue\n")
    assert main(["check-data", str(tmp_path / "x.csv"), str(tmp_path / "none.csv"), str(SAMPLES / "stooq.csv")]) == 1
    printed = capsys.readouterr().out
    assert "x.csv, line 1: expected the columns open, high, low, close" in printed
    assert f"{tmp_path / 'none.csv'}: expected a readable file: No such file or directory" in printed
    assert "dialect stooq, 10 bars" in printed


def test_dialect_mapping_policies_and_calendar_are_options_and_keys_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    german = str(SAMPLES / "german.csv")
    settings = tmp_path / "files.toml"
    settings.write_text(
        '[mapping]\ndelimiter = ";"\ndecimal = ","\nthousands = "."\nencoding = "cp1252"\ntime = ["Datum", "Uhrzeit"]\nopen = "Eröffnung"\n'
        'high = "Hoch"\nlow = "Tief"\nclose = "Schluss"\nvolume = "Stück"\ntime_zone = "Europe/Berlin"\n',
        encoding="utf-8",
    )
    assert main(["check-data", german, "--config", str(settings)]) == 0
    assert "dialect own, 6 bars" in capsys.readouterr().out
    assert main(["check-data", german, "--config", str(settings), "--faults.gap", "refuse", "--calendar", "24/7"]) == 1
    assert "FAULT     gap: 1 (refuse)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dialect", "bloomberg"], "dialect: expected auto, plain"),
        (["--calendar", "MOON"], "calendar: expected 24/7, 24/5, weekdays, or the code of an exchange"),
        (["--mapping.time_zone", "Mars"], "time_zone: expected UTC"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-data", str(SAMPLES / "stooq.csv"), *options]) == 2
    assert message in capsys.readouterr().err


def minute_bars(path: Path, repaired: bool) -> Path:
    """Write a million one-minute bars; for repair with a decimal comma and separators of thousands."""
    rng = np.random.default_rng(1)
    close = np.round(10_000 * np.exp(np.cumsum(rng.normal(0, 1e-4, 1_000_000))), 2)
    opened = np.append(10_000, close[:-1])
    high, low = np.maximum(opened, close) + 0.5, np.minimum(opened, close) - 0.5
    times = np.datetime_as_string(np.datetime64("2022-01-03T00:00:00") + np.arange(1_000_000) * np.timedelta64(60, "s"))

    def number(value: float) -> str:
        return f"{value:,.2f}".translate(str.maketrans(",.", ".,")) if repaired else f"{value:.2f}"

    separator = ";" if repaired else ","
    with path.open("w") as file:
        file.write(separator.join(("time", "open", "high", "low", "close", "volume")) + "\n")
        for time, *values in zip(times.tolist(), *(column.tolist() for column in (opened, high, low, close)), strict=True):
            file.write(separator.join((time.replace("T", " "), *map(number, values), "12")) + "\n")
    return path


@pytest.mark.figures
@pytest.mark.parametrize(
    ("settings", "seconds"),
    [({}, 1.0), ({"mapping": {"delimiter": ";", "decimal": ",", "thousands": "."}}, 3.0)],
    ids=["as it is", "with repair"],
)
def test_a_million_bars_are_checked_in_the_promised_time_and_memory(settings: dict[str, object], seconds: float, tmp_path: Path) -> None:
    path = minute_bars(tmp_path / "a.csv", repaired=bool(settings))
    measured = []
    for _ in range(3):
        ended = subprocess.run([sys.executable, "-c", MEASURED, str(path), repr(settings)], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        measured.append([float(figure) for figure in ended.stdout.split()])
    cpu_s, memory_mib = np.min(measured, axis=0)
    sys.stdout.write(f"{cpu_s:.2f} s of CPU, {memory_mib:.0f} MiB\n")
    assert cpu_s <= seconds
    assert memory_mib <= 250
