"""Measure rows per second of *refine*, compared with the same checks hand-written in pandas and with stock GX.

1,000,000 rows x 12 columns, 12 expectations, all three in one run: `python -m tests.benchmarks.bench_refine [rows]`.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from flows.refinery.contract.model import Contract
from flows.refinery.read.formats import ROWS_PER_PARTITION
from flows.refinery.refine import refine_file
from flows.refinery.validate.expectations import Judge
from flows.refinery.validate.gx import gx
from flows.refinery.validate.rules import Method, rules_of
from flows.refinery.validate.uniqueness import HashCollector, duplicated_rows

COLUMNS = {
    "order_id": "string",
    "ordered_at": "timestamp",
    "customer": "integer",
    "country": "string",
    "sku": "string",
    "quantity": "integer",
    "unit_price": "number",
    "discount": "number",
    "weight": "number",
    "express": "boolean",
    "items": "integer",
    "note": "string",
}
COUNTRIES = ["AT", "BE", "CH", "DE", "ES", "FR", "IT", "PL"]
CONTRACT = Contract.model_validate(
    {
        "dataset": "benchmark",
        "columns": COLUMNS,
        "expectations": [
            {"expect_column_values_to_not_be_null": {"column": "order_id"}},
            {"expect_column_values_to_match_regex": {"column": "order_id", "regex": r"^ORD-\d{8}$"}},
            {"expect_column_values_to_be_unique": {"column": "order_id"}},
            {"expect_column_values_to_be_in_set": {"column": "country", "value_set": COUNTRIES}},
            {"expect_column_values_to_be_between": {"column": "quantity", "min_value": 1, "max_value": 100}},
            {"expect_column_values_to_be_between": {"column": "unit_price", "min_value": 0, "max_value": 1000}},
            {"expect_column_values_to_be_between": {"column": "discount", "min_value": 0, "max_value": 0.9}},
            {"expect_column_value_lengths_to_be_between": {"column": "sku", "min_value": 4, "max_value": 8}},
            {
                "expect_column_pair_values_a_to_be_greater_than_b": {
                    "column_A": "unit_price",
                    "column_B": "discount",
                    "ignore_row_if": "either_value_is_missing",
                }
            },
            {"expect_column_mean_to_be_between": {"column": "weight", "min_value": 1, "max_value": 100}},
            {"expect_column_max_to_be_between": {"column": "items", "max_value": 60}},
            {"expect_table_row_count_to_be_between": {"min_value": 1}},
        ],
        "preprocess": ["clean_column_names", {"fill_missing": {"column": "discount", "value": 0}}],
    }
)


def write_sample(path: Path, rows: int) -> None:
    """Return orders of which about one in a hundred breaks a rule."""
    random = np.random.default_rng(1)
    quantity = random.integers(1, 101, rows)
    quantity[random.random(rows) < 0.01] = 500
    discount = np.round(random.uniform(0, 0.9, rows), 2)
    discount[random.random(rows) < 0.3] = np.nan
    frame = pd.DataFrame(
        {
            "order_id": [f"ORD-{number:08d}" for number in range(rows)],
            "ordered_at": pd.date_range("2024-01-01", periods=rows, freq="s").astype(str),
            "customer": random.integers(1, 100_000, rows),
            "country": random.choice(COUNTRIES, rows),
            "sku": random.choice([f"SKU-{number:03d}" for number in range(500)], rows),
            "quantity": quantity,
            "unit_price": np.round(random.uniform(1, 999, rows), 2),
            "discount": discount,
            "weight": np.round(random.uniform(1, 50, rows), 3),
            "express": random.random(rows) < 0.2,
            "items": random.integers(1, 50, rows),
            "note": random.choice(["fragile", "gift", "none"], rows),
        }
    )
    frame.to_csv(path, index=False)


def by_sluice(source: Path, folder: Path) -> int:
    """Run the refinery: decode, coerce, validate, quarantine, preprocess, write Parquet with its digest."""
    return refine_file(source, CONTRACT, folder).rows_published


def by_hand(source: Path, folder: Path) -> int:
    """Run what a data scientist would write, on the whole file in memory: no reasons per row, no digest."""
    frame = read_whole(source)
    bad = checks_by_hand(frame)
    frame[bad].to_parquet(folder / "bad.parquet", compression="zstd")
    good = frame[~bad].fillna({"discount": 0})
    good.to_parquet(folder / "good.parquet", compression="zstd")
    return len(good)


def by_stock_gx(source: Path, folder: Path) -> int:
    """Run GX as documented: the whole file as one batch, with the indexes of unexpected rows."""
    frame = read_whole(source)
    bad = checks_by_stock_gx(frame)
    frame[bad].to_parquet(folder / "bad.parquet", compression="zstd")
    good = frame[~bad].fillna({"discount": 0})
    good.to_parquet(folder / "good.parquet", compression="zstd")
    return len(good)


def read_whole(source: Path) -> pd.DataFrame:
    """Return the whole file as one DataFrame."""
    frame = pd.read_csv(source)
    frame["ordered_at"] = pd.to_datetime(frame["ordered_at"], format="ISO8601", errors="coerce")
    return frame


def checks_by_hand(frame: pd.DataFrame) -> pd.Series:
    """Return the mask of the bad rows: the twelve expectations, written in pandas."""
    bad = frame["order_id"].isna()
    bad |= ~frame["order_id"].str.match(r"^ORD-\d{8}$")
    bad |= frame["order_id"].duplicated(keep=False)
    bad |= ~frame["country"].isin(COUNTRIES)
    bad |= ~frame["quantity"].between(1, 100)
    bad |= ~frame["unit_price"].between(0, 1000)
    bad |= ~frame["discount"].between(0, 0.9) & frame["discount"].notna()
    bad |= ~frame["sku"].str.len().between(4, 8)
    bad |= ~(frame["unit_price"] > frame["discount"]) & frame["discount"].notna()
    if not (1 <= frame["weight"].mean() <= 100 and frame["items"].max() <= 60 and len(frame)):
        raise ValueError("the table as a whole is not as expected")
    return bad


def checks_by_stock_gx(frame: pd.DataFrame) -> pd.Series:
    """Return the mask of the bad rows from `ValidationDefinition.run`."""
    import great_expectations

    context = great_expectations.get_context(mode="ephemeral")
    asset = context.data_sources.add_pandas("stock").add_dataframe_asset("rows")
    definition = asset.add_batch_definition_whole_dataframe("all")
    suite = great_expectations.ExpectationSuite(name="orders")
    for rule in rules_of(CONTRACT):
        configuration = gx().ExpectationConfiguration(type=rule.name, kwargs=dict(rule.arguments))
        suite.add_expectation(configuration.to_domain_obj())
    context.suites.add(suite)
    validation = great_expectations.ValidationDefinition(name="orders", data=definition, suite=suite)
    result = validation.run(batch_parameters={"dataframe": frame}, result_format="COMPLETE")
    bad = np.zeros(len(frame), dtype=bool)
    for one in result.results:
        bad[one.result.get("unexpected_index_list") or []] = True
    return pd.Series(bad)


def checks_by_sluice(frame: pd.DataFrame) -> pd.Series:
    """Return the mask of the bad rows, by partitions with GX's metric graph; duplicates by their hashes."""
    judge, keys = Judge(rules_of(CONTRACT)), HashCollector()
    unique = next(place for place, rule in enumerate(judge.rules) if rule.method is Method.UNIQUE)
    bad = np.zeros(len(frame), dtype=bool)
    for start in range(0, len(frame), ROWS_PER_PARTITION):
        part = frame.iloc[start : start + ROWS_PER_PARTITION].reset_index(drop=True)
        findings = judge.judge(part, np.arange(start, start + len(part)))
        for finding in findings:
            if finding.failing is not None:
                bad[start + finding.failing] = True
        key_hashes = findings[unique].key_hashes
        if key_hashes is not None:
            keys.add(key_hashes)
    bad[duplicated_rows(keys, lambda: [(frame[["order_id"]], np.arange(len(frame)))])] = True
    return pd.Series(bad)


def measure(name: str, work: Callable[[Path, Path], int], source: Path, rows: int) -> tuple[float, float, int]:
    """Return wall seconds, CPU seconds and the number of good rows."""
    with tempfile.TemporaryDirectory() as folder:
        start, cpu_start = time.perf_counter(), time.process_time()
        good = work(source, Path(folder))
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    print(f"{name:<10} {rows / seconds:>11,.0f} rows/s {seconds:7.2f} s {cpu_seconds:7.2f} s CPU  {good:,} good rows")
    return seconds, cpu_seconds, good


def main(rows: int = 1_000_000) -> None:
    """Measure all three and print the ratios."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "orders.csv"
        write_sample(source, rows)
        print(f"{rows:,} rows x {len(COLUMNS)} columns, {len(CONTRACT.expectations)} expectations, CSV")
        warm_up(source)
        hand, hand_cpu, hand_good = measure("pandas", by_hand, source, rows)
        ours, our_cpu, our_good = measure("sluice", by_sluice, source, rows)
        gx().pandas_execution_engine.HASH_THRESHOLD = 1e9  # as GX has it
        stock, stock_cpu, stock_good = measure("stock GX", by_stock_gx, source, rows)
        measure_checks(source)
    if not hand_good == our_good == stock_good:
        raise SystemExit("the three do not agree on the good rows")
    print(f"from file to files: sluice takes {ours / hand:.2f} x pandas by hand (CPU {our_cpu / hand_cpu:.2f} x)")
    print(f"from file to files: stock GX takes {stock / ours:.2f} x sluice (CPU {stock_cpu / our_cpu:.2f} x)")


def measure_checks(source: Path) -> None:
    """Measure only the checks, on a DataFrame in memory."""
    frame = read_whole(source)
    seconds = {}
    for name, work in (("pandas", checks_by_hand), ("sluice", checks_by_sluice), ("stock GX", checks_by_stock_gx)):
        start = time.process_time()
        bad = work(frame)
        seconds[name] = time.process_time() - start
        print(
            f"{name:<10} {len(frame) / seconds[name]:>11,.0f} rows/s of the checks alone  {int(bad.sum()):,} bad rows"
        )
    print(f"checks alone, CPU: sluice takes {seconds['sluice'] / seconds['pandas']:.2f} x pandas by hand")
    print(f"checks alone, CPU: stock GX takes {seconds['stock GX'] / seconds['sluice']:.2f} x sluice")


def warm_up(source: Path) -> None:
    """Import what all three import, outside the measurement."""
    small = source.with_name("small.csv")
    write_sample(small, 1000)
    for work in (by_hand, by_sluice, by_stock_gx):
        with tempfile.TemporaryDirectory() as folder:
            work(small, Path(folder))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
