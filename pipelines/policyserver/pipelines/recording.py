"""Opens the sinks that a pipeline records to."""

from __future__ import annotations

from pathlib import Path

from policyserver.monitoring.recording import prepared
from policyserver.monitoring.sink import Sink
from policyserver.pipelines.config import PipelineRecordingConfig

_WITHOUT_STORE = Path("runs/pipeline.sqlite")
"""Where the store would be, for the spool that lies beside it."""


def open_recording(recording: PipelineRecordingConfig) -> Sink:
    """Return the sink that the settings and the environment describe.

    Raises:
        ValueError: The environment or the file describes an InfluxDB incompletely, or influxdb-client is not installed.
        OSError: The folder of points that wait for InfluxDB can't be made.
        sqlite3.Error: The store can't be opened.
    """
    return prepared(recording, recording.store, (recording.store or _WITHOUT_STORE).parent)()
