"""Arrays from an .npz file that anybody may have written: nothing is unpickled, and nothing larger than the file is allocated."""

from __future__ import annotations

import io
import math
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_END = struct.Struct("<4s4H2LH")
"""What a zip ends with: signature, two disk numbers, entries here and in all, bytes of the directory, where it is, bytes of a comment."""
_LOCATOR_BYTES = 20
"""Before it in a zip of more than 65,535 members or 4 GiB, by which a reader would find a directory of any size."""
_MOST_DIRECTORY_BYTES = 2**18
_MOST_HEADER_BYTES = 1000
_DTYPES = tuple(map(np.dtype, ("<f4", "<f8", "|u1")))


class PolicyFileError(ValueError):
    """A file that is no policy, or was damaged. Export it again, by `policy-server export`."""


def read_arrays(path: Path, most_bytes: int) -> dict[str, Array]:
    """Read the arrays of an .npz file that `numpy.savez` wrote, by name.

    Raises:
        PolicyFileError: It is no such file, is larger than `most_bytes`, or has arrays other than float32, float64 and uint8.
        OSError: It can't be read.
    """
    with path.open("rb") as file:
        try:
            size = _check_end(file, most_bytes)
            with zipfile.ZipFile(file) as members:
                infos = members.infolist()
                if sum(info.file_size for info in infos) > size or len({info.filename for info in infos}) < len(infos):
                    raise PolicyFileError("expected members without compression and beside each other, received others")
                return {info.filename.removesuffix(".npy"): _array(members, info) for info in infos}
        except (zipfile.BadZipFile, ValueError, LookupError, NotImplementedError, EOFError, struct.error, RuntimeError) as error:
            raise PolicyFileError(f"{path}: expected a policy as `policy-server export` writes it, received: {error}") from error


def _check_end(file: IO[bytes], most_bytes: int) -> int:
    """Return the size of a zip whose directory is small enough to be read."""
    size = file.seek(0, io.SEEK_END)
    if size > most_bytes:
        raise PolicyFileError(f"{size} bytes, more than the {most_bytes} that max_bytes allows")
    file.seek(max(size - _END.size - _LOCATOR_BYTES, 0))
    tail = file.read()
    if len(tail) < _END.size:
        raise PolicyFileError(f"{size} bytes, which are no .npz file")
    signature, *_, directory_bytes, _, comment_bytes = _END.unpack(tail[-_END.size :])
    if signature != b"PK\x05\x06" or comment_bytes or tail[:4] == b"PK\x06\x07" or directory_bytes > _MOST_DIRECTORY_BYTES:
        raise PolicyFileError("what doesn't end as an .npz file of numpy's does")
    file.seek(0)
    return size


def _array(members: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    """Read one array; its bytes are those of the file, so that a header can't claim more."""
    name = info.filename
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or not name.endswith(".npy"):
        raise PolicyFileError(f"{name!r}, expected an array without compression")
    content = io.BytesIO(members.read(info))
    if np.lib.format.read_magic(content) != (1, 0):
        raise PolicyFileError(f"{name}: expected version 1.0 of numpy's format")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(content, max_header_size=_MOST_HEADER_BYTES)
    data = content.getbuffer()[content.tell() :]
    if dtype not in _DTYPES or fortran_order or len(shape) > 8 or min(shape, default=0) < 0:
        raise PolicyFileError(f"{name}: expected float32, float64 or uint8 in row-major order, received {dtype}{list(shape)}")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise PolicyFileError(f"{name}: expected {math.prod(shape) * dtype.itemsize} bytes for {dtype}{list(shape)}, received {len(data)}")
    return np.frombuffer(data, dtype).reshape(shape)
