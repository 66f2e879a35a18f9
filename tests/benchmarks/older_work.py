"""An older workload of bench_refine.py, in three implementations. Its rules include aggregates, and about 1% of the
rows are bad."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from flows.refinery.contract.model import Contract
from flows.refinery.refine import refine_file
from flows.refinery.validate.gx import gx
from flows.refinery.validate.rules import rules_of

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
    """Write a CSV file with orders, about 1% of which break a rule."""
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
    """Do the work with Sluice, which decodes, converts, validates, quarantines and preprocesses the rows, and writes
    Parquet files with their hashes."""
    return refine_file(source, CONTRACT, folder).rows_published


def by_hand(source: Path, folder: Path) -> int:
    """Do the work with code that a data scientist would write. It keeps the whole file in memory, and gives no reason
    for a bad row and no hash."""
    frame = read_whole(source)
    bad = checks_by_hand(frame)
    frame[bad].to_parquet(folder / "bad.parquet", compression="zstd")
    good = frame[~bad].fillna({"discount": 0})
    good.to_parquet(folder / "good.parquet", compression="zstd")
    return len(good)


def by_stock_gx(source: Path, folder: Path) -> int:
    """Do the work with GX as its documentation describes: the whole file is one batch, and the results contain the
    indexes of unexpected rows."""
    gx().pandas_execution_engine.HASH_THRESHOLD = 1e9  # GX's default
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
    """Return a mask of the bad rows, from the twelve expectations written in pandas."""
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
    """Return a mask of the bad rows, from GX's `ValidationDefinition.run`."""
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
