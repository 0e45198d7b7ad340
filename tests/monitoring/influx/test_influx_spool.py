"""The spool: every whole line appended is read once, in order, and nothing else is."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from policyserver.monitoring.influx.spool import Spool


def drain(spool: Spool, max_bytes: int = 64) -> list[bytes]:
    lines: list[bytes] = []
    while (chunk := spool.read(max_bytes)) is not None:
        lines += chunk.lines
        spool.advance(chunk.end)
    return lines


def adopted(folder: Path, segment_bytes: int) -> Spool:
    spool = Spool.adopt(folder, segment_bytes)
    assert spool is not None
    return spool


def numbered(first: int, last: int) -> list[bytes]:
    return [b"line %d\n" % number for number in range(first, last)]


def test_lines_come_out_in_order_across_segments_which_are_removed_when_read(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, segment_bytes=100)
    for line in numbered(0, 100):
        spool.append(line)
    assert len(list(spool.folder.glob("*.lp"))) > 5
    assert drain(spool) == numbered(0, 100)
    assert spool.backlog_bytes == 0
    assert len(list(spool.folder.glob("*.lp"))) == 1
    spool.append(b"a line that is longer than what is read at once, by far, but whole all the same and so it must come out\n")
    assert drain(spool, 10) == [
        b"a line that is longer than what is read at once, by far, but whole all the same and so it must come out\n"
    ]
    spool.close()
    spool.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_reader_beside_a_writer_misses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, segment_bytes=300)
    lock = threading.Lock()
    count = 20_000

    def write() -> None:
        for line in numbered(0, count):
            with lock:
                spool.append(line)

    writer = threading.Thread(target=write)
    writer.start()
    lines: list[bytes] = []
    while len(lines) < count:
        chunk = spool.read(1000)
        if chunk is not None:
            lines += chunk.lines
            with lock:
                spool.advance(chunk.end)
        elif not writer.is_alive() and spool.read(1) is None:
            break
    writer.join()
    assert lines == numbered(0, count)
    assert spool.backlog_bytes == 0
    spool.close()


def test_an_orphan_is_adopted_where_delivery_stood_without_its_torn_last_line(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, segment_bytes=100)
    for line in numbered(0, 50):
        spool.append(line)
    chunk = spool.read(64)
    assert chunk is not None
    spool.advance(chunk.end)
    assert Spool.adopt(spool.folder, 100) is None, "its owner lives"
    spool.abandon()
    with max(spool.folder.glob("*.lp")).open("ab") as newest:
        newest.write(b"line 5")
    orphan = adopted(spool.folder, 100)
    left = numbered(0, 50)[len(chunk.lines) :]
    assert orphan.undelivered_lines() == len(left)
    assert orphan.backlog_bytes == sum(map(len, left))
    assert drain(orphan) == left
    orphan.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cursor", ["", "nonsense", "1", "7 3", "1 99999", "-1 0"])
def test_a_damaged_cursor_delivers_everything_again(tmp_path: Path, cursor: str) -> None:
    spool = Spool.create(tmp_path, segment_bytes=1000)
    for line in numbered(0, 10):
        spool.append(line)
    spool.abandon()
    (spool.folder / "cursor").write_text(cursor)
    orphan = adopted(spool.folder, 1000)
    assert drain(orphan) == numbered(0, 10)
    orphan.close()


@pytest.mark.process
def test_a_disk_that_takes_only_part_of_a_batch_takes_none_of_it(tmp_path: Path) -> None:
    program = """
import resource, signal, sys
from pathlib import Path
from policyserver.monitoring.influx.spool import Spool
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
spool = Spool.create(Path(sys.argv[1]), 1 << 20)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
failed = 0
for number in range(100):
    try:
        spool.append(b"line %02d of a batch\\nand its second line\\n" % number)
    except OSError:
        failed += 1
sys.stdout.write(f"{failed} {spool.backlog_bytes}")
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=110, check=True)
    failed, backlog_bytes = map(int, done.stdout.split())
    orphan = adopted(next(tmp_path.iterdir()), 1 << 20)
    lines = drain(orphan)
    assert 0 < failed < 100
    assert len(lines) == 2 * (100 - failed)
    assert sum(map(len, lines)) == backlog_bytes <= 1000
    orphan.close()


def test_a_spool_that_cannot_be_opened_is_adopted_once_it_can(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, 1000)
    spool.append(b"a line\n")
    spool.abandon()
    segment, aside = spool.folder / "00000001.lp", spool.folder / "aside"
    segment.rename(aside)
    segment.mkdir()
    with pytest.raises(IsADirectoryError):
        Spool.adopt(spool.folder, 1000)
    segment.rmdir()
    aside.rename(segment)
    orphan = adopted(spool.folder, 1000)
    assert drain(orphan) == [b"a line\n"], "this process does not keep the lock of the attempt"
    orphan.close()


def test_a_cursor_that_cannot_be_written_is_said_once_and_a_segment_that_stays_is_no_trouble(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool.create(tmp_path, 20)
    for line in numbered(0, 20):
        spool.append(line)
    (spool.folder / "cursor.new").mkdir()
    first = spool.folder / "00000001.lp"
    chunk = spool.read(64)
    assert chunk is not None
    first.unlink()
    (first / "no segment").mkdir(parents=True)
    spool.advance(chunk.end)
    assert chunk.lines + drain(spool) == numbered(0, 20)
    cursor, segment = [record.getMessage() for record in caplog.records]
    assert "the cursor can't be written" in cursor
    assert "what is delivered can't be removed" in segment
    spool.close()


def test_what_is_no_spool_is_neither_adopted_nor_removed(tmp_path: Path) -> None:
    foreign = tmp_path / "of-somebody-else"
    (foreign / "results").mkdir(parents=True)
    (foreign / "results" / "of-weeks.csv").write_text("1,2\n")
    (foreign / "lines.lp").write_text("no segment")
    assert Spool.adopt(foreign, 1000) is None
    assert sorted(path.name for path in foreign.iterdir()) == ["lines.lp", "results"]
    assert (foreign / "results" / "of-weeks.csv").read_text() == "1,2\n"


def test_what_somebody_puts_into_a_spool_outlives_it(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, 1000)
    (spool.folder / "notes.txt").write_text("kept")
    spool.close()
    assert [path.name for path in spool.folder.iterdir()] == ["notes.txt"]
    assert Spool.adopt(spool.folder, 1000) is None
