"""Files that claim or expand to much more than they are: rejected, by a reader that has little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cases.hostile import FILES

_CHILD = """
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


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_ends_well_with_little_memory(name: str, tmp_path: Path) -> None:
    hostile = FILES[name]
    path = tmp_path / "upload"
    path.write_bytes(hostile.content())
    child = subprocess.run(
        [sys.executable, "-c", _CHILD.format(megabytes=hostile.megabytes), str(path)],
        env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"},  # the others reserve a gigabyte that they do not use
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-500:]
    assert json.loads(child.stdout)[0] in hostile.ends, child.stdout
