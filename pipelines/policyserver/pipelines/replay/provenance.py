"""What a run was made with: versions, revision, processor, and the files of its prices."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.market.catalog import Catalog, file_hash
from policyserver.pipelines.prices.config import PricesConfig

_PACKAGES = ("rllib-policy-server", "numpy", "river", "pyarrow")
_GIT_S = 10.0
_CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file that a run reads."""

    path: str
    sha256: str
    """Of its bytes, in hexadecimal digits."""
    n_bytes: int

    @classmethod
    def of_bytes(cls, path: Path, data: bytes) -> DataFile:
        """Describe a file whose bytes are known."""
        return cls(str(path.expanduser().absolute()), hashlib.sha256(data).hexdigest(), len(data))


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a run was made with."""

    seed: int
    episodes_seed: int
    """Of this pipeline's own episodes: seed and worker number in one."""
    versions: dict[str, str]
    """Of Python and of the packages that figures depend on."""
    revision: str | None
    """Git's revision of the product, with "+" where files differ from it; None: it is not a checkout."""
    processor: str
    """Type of the CPU."""
    data: tuple[DataFile, ...]
    """Files of bars."""
    forecast_state: DataFile | None = None
    """What the forecaster began with, where it lay then; None: it began anew."""

    @classmethod
    def of(cls, config: PipelineConfig) -> Provenance:
        """Find out what a run of these settings is made with, here and now.

        Raises:
            OSError: A file of bars can't be read.
            FileFaultError: A path has none.
        """
        return cls(config.seed, config.episodes_seed, _versions(), _revision(), processor(), data_files(config.prices))

    @classmethod
    def from_json(cls, text: str) -> Provenance:
        """Read what `to_json` wrote.

        Raises:
            ValueError: It is not that.
        """
        try:
            fields: dict[str, Any] = json.loads(text)
            state = fields.get("forecast_state")
            files = {"data": tuple(DataFile(**each) for each in fields["data"]), "forecast_state": state and DataFile(**state)}
            return cls(**fields | files)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"expected what a run was made with, received {error}") from error

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def differences(self, here: Provenance) -> list[str]:
        """Return what of versions, revision and processor is another one here."""
        names = sorted(self.versions | here.versions)
        pairs = [(name, self.versions.get(name), here.versions.get(name)) for name in names]
        pairs += [("revision", self.revision, here.revision), ("processor", self.processor, here.processor)]
        return [f"{name} {then or 'unknown'}, here {now or 'unknown'}" for name, then, now in pairs if then != now]


def data_files(prices: PricesConfig) -> tuple[DataFile, ...]:
    """Return the files of bars with their hashes, none where prices are simulated from none."""
    catalogs = [Catalog(config) for config in prices.catalogs]
    paths = sorted({path for catalog in catalogs for symbol in catalog.symbols for path in catalog.files_of(symbol)})
    return tuple(DataFile(str(path), file_hash(path), path.stat().st_size) for path in paths)


def processor() -> str:
    """Return the type of the CPU."""
    names = [line.partition(":")[2].strip() for line in _lines(_CPU_INFO) if line.startswith("model name")]
    return f"{platform.machine()} {names[0] if names else platform.processor()}".strip()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in _PACKAGES}


def _revision() -> str | None:
    """Ask git for the revision, if this file belongs to a checkout: an installed copy may lie in a checkout of something else."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=_GIT_S, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no", "--", ":/") else "")
    except (OSError, subprocess.SubprocessError):
        return None
