"""Each option that is given to gRPC is one that gRPC has: of others it says nothing, and goes on without."""

from __future__ import annotations

import re
from pathlib import Path

import grpc

ROOT = Path(__file__).parents[1]
OPTION = re.compile(r'"(grpc\.[a-z0-9_.]+)"')


def test_grpc_knows_each_option() -> None:
    (library,) = (Path(grpc.__file__).parent / "_cython").glob("cygrpc*.so")
    known = library.read_bytes()
    given = {
        (option, str(file.relative_to(ROOT)))
        for folder in ("server", "client", "pipelines", "monitoring", "benchmarks")
        for file in (ROOT / folder).rglob("*.py")
        for option in OPTION.findall(file.read_text(encoding="utf-8"))
    }
    assert len({option for option, _ in given}) > 10
    assert [each for each in sorted(given) if each[0].encode() + b"\0" not in known] == []
