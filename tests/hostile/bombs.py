"""Small files that claim to be, or become, far more than anybody wants to read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.lib import format as npy
from PIL import Image

ROW = b'{"text": "' + b"a" * 2**20 + b'", "label": 1}\n'


def packed(opener: Callable[[io.BytesIO], io.BufferedIOBase], copies: int = 400) -> bytes:
    """So many rows of a mebibyte, packed."""
    content = io.BytesIO()
    with opener(content) as file:
        for _ in range(copies):
            file.write(ROW)
    return content.getvalue()


@cache
def gzip_bomb() -> bytes:
    """400 MiB in 400 KiB."""
    return packed(lambda content: gzip.GzipFile(fileobj=content, mode="wb", compresslevel=6))  # type: ignore[arg-type,return-value]


@cache
def bz2_bomb() -> bytes:
    """The same in some hundred bytes."""
    return packed(lambda content: bz2.BZ2File(content, "wb"), 100)  # type: ignore[arg-type,return-value]


@cache
def xz_bomb() -> bytes:
    """The same in some ten thousand bytes."""
    return packed(lambda content: lzma.LZMAFile(content, "wb"), 100)  # type: ignore[arg-type,return-value]


def parquet_bomb(path: Path) -> None:
    """Two thousand rows of the same mebibyte, which is stored once."""
    texts = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 2000, pyarrow.int32()), ["a" * 2**20])
    table = pyarrow.table({"text": texts, "label": [0, 1] * 1000})
    # Without the schema of Arrow a reader makes plain texts of it.
    pyarrow.parquet.write_table(table, path, store_schema=False)


def header(shape: tuple[int, ...], dtype: str = "|u1", version: tuple[int, int] = (1, 0)) -> bytes:
    """The header of an array of this shape."""
    content = io.BytesIO()
    written = {"descr": dtype, "fortran_order": False, "shape": shape}
    (npy.write_array_header_1_0 if version == (1, 0) else npy.write_array_header_2_0)(content, written)
    return content.getvalue()


def claiming_npz(path: Path, shape: tuple[int, ...] = (10**6, 10**4, 10**4), dtype: str = "|u1") -> None:
    """Arrays whose headers claim what is not there."""
    with zipfile.ZipFile(path, "w") as file:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            file.writestr(f"{name}.npy", header(shape, dtype) + b"\0" * 16)


def growing_npz(path: Path, mebibytes: int = 300) -> None:
    """Zeros, which pack a thousand times."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            rows = mebibytes * 2**20 // 4 // 1024 if name.startswith("x") else 1
            with file.open(f"{name}.npy", "w") as entry:
                entry.write(header((rows, 32, 32)))
                for _ in range(rows // 1024 or 1):
                    entry.write(b"\0" * 2**20)


@cache
def giant_png(side: int = 60_000) -> bytes:
    """A picture of 3.6 thousand million pixels in 4 MB, its rows all black."""
    data = zlib.compressobj(6)
    row = b"\0" * (side // 8 + 1)
    body = b"".join(data.compress(row * 100) for _ in range(side // 100)) + data.flush()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    start = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", start) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def picture() -> bytes:
    """A small picture."""
    content = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 200, dtype=np.uint8)).save(content, format="PNG")
    return content.getvalue()
