"""Hostile files, which would fill the memory of a careless reader. Each one is created when it is read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tests.cases.parquet import parquet
from tests.cases.workbooks import raw_workbook

_SST = b'<sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" %s>%s</sst>'


_READER = """
import json, resource, sys
from pathlib import Path
from flows.refinery.contract.model import Contract
from flows.refinery.errors import FileRejected
from flows.refinery.read.formats import read_partitions
import numpy, pandas, pyarrow.parquet, python_calamine
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {megabytes} * 2**20, resource.RLIM_INFINITY))
rows = 0
try:
    for partition in read_partitions(Path(sys.argv[1]), Contract(dataset="hostile")):
        rows += partition.rows_in
        del partition
except FileRejected as error:
    print(json.dumps([error.code, rows]))
else:
    print(json.dumps(["read", rows]))
"""


@dataclass(frozen=True)
class Hostile:
    """A hostile file.

    Attributes:
        content: a function that creates the file's bytes.
        ends: the allowed results: codes of rejections, or "read" if the whole file may be read.
        megabytes: how much more address space the process may use while it reads the file, in MiB.
    """

    content: Callable[[], bytes]
    ends: tuple[str, ...] = ("expands_too_much",)
    megabytes: int = 1024

    def ending(self) -> str:
        """Read the file in a process whose address space is limited, and whose child processes have the same limit.
        Return the code of the rejection, or "read" if there is none.

        Raises:
            subprocess.CalledProcessError: the process failed, for example because it needed more memory.
            subprocess.TimeoutExpired: the process took more than a minute.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "upload"
            path.write_bytes(self.content())
            read = subprocess.run(
                [sys.executable, "-c", _READER.format(megabytes=self.megabytes), str(path)],
                # Arrow's other memory pools reserve one gigabyte that they do not use.
                env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"},
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
        return str(json.loads(read.stdout)[0])


def _one_long_text() -> bytes:
    rows = b"".join(b'<row r="%d"><c r="A%d" t="s"><v>0</v></c></row>' % (row, row) for row in range(1, 40_001))
    return raw_workbook(rows, _SST % (b'count="1" uniqueCount="1"', b"<si><t>%s</t></si>" % (b"x" * 32_000)))


def _claimed_texts() -> bytes:
    sheet = b'<row r="1"><c r="A1" t="s"><v>0</v></c></row>'
    return raw_workbook(sheet, _SST % (b'count="4000000000" uniqueCount="4000000000"', b"<si><t>h</t></si>"))


def _texts_in_structs() -> bytes:
    text = pa.array([{"x": "a" * 1_000_000}] * 2, pa.struct({"x": pa.string()}))
    return parquet({"s": text.take(pa.array([0] * 1_500))}, compression="zstd", use_dictionary=True)


def _bytes_of_fixed_size() -> bytes:
    one = pa.array([b"a" * 1_000_000], pa.binary(1_000_000))
    return parquet({"b": one.take(pa.array([0] * 300))}, compression="zstd", use_dictionary=True)


def _one_line_of_objects() -> bytes:
    return b"".join(b'{"id":%d,"v":"text %d","x":2.5}' % (row, row) for row in range(250_000))


def _new_names_in_each_row() -> bytes:
    return b"".join(b'{"a%d":1,"b%d":2}\n' % (row, row) for row in range(20_000))


def _many_names_then_short_rows() -> bytes:
    first = b"{%s}\n" % b",".join(b'"c%d":1' % column for column in range(10_000))
    return first + b'{"c1":2}\n' * 200_000


def _many_names_after_short_rows() -> bytes:
    last = b"{%s}\n" % b",".join(b'"c%d":1' % column for column in range(10_000))
    return b'{"c1":2}\n' * 200_000 + last


def _a_long_quoted_field() -> bytes:
    return b'a,b\n1,"' + b"x" * 200_000_000 + b'"\n2,y\n'


def _many_quoted_lines() -> bytes:
    return b'a,b\n1,"' + b"x,\n" * 60_000_000 + b'"\n2,y\n'


FILES = {
    "JSON objects on one line of 10 MB": Hostile(_one_line_of_objects, ("read",), megabytes=512),
    "JSON Lines with new names in each row": Hostile(_new_names_in_each_row, megabytes=512),
    "JSON Lines with 10,000 names, then short rows": Hostile(_many_names_then_short_rows, megabytes=512),
    "JSON Lines with short rows, then 10,000 names": Hostile(_many_names_after_short_rows, megabytes=512),
    "CSV with a quoted field of 200 MB": Hostile(_a_long_quoted_field, ("record_too_long",)),
    "CSV with a quoted field of 60,000,000 lines": Hostile(_many_quoted_lines, ("record_too_long",)),
    "Parquet with one string in 1,500 structs": Hostile(_texts_in_structs),
    "Parquet with fixed-size binary values": Hostile(_bytes_of_fixed_size, ("read",)),
    "a workbook that claims 4,000,000,000 shared strings": Hostile(_claimed_texts),
    "a workbook with one long shared string in 40,000 cells": Hostile(_one_long_text),
}
