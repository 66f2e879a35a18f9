"""The work of the benchmark written by hand, in pandas and in polars. The whole file is in memory, and each bad row has
all of its reasons."""

from __future__ import annotations

import importlib
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.benchmarks.yardstick.orders import COUNTRIES

_FIRST, _LAST = np.datetime64("2020-01-01"), np.datetime64("2026-12-31")
_FORMAT = "%Y-%m-%d %H:%M:%S"
_TIMES = ["Ordered At", "Shipped At"]


def with_pandas(source: Path, folder: Path) -> int:
    """Write good.parquet and bad.parquet, and return the number of good rows."""
    raw = pd.read_csv(source, dtype={"Order ID": "str"})
    times = {name: pd.to_datetime(raw[name], format=_FORMAT, errors="coerce") for name in _TIMES}
    frame = raw.assign(**times, Weight=pd.to_numeric(raw["Weight"], errors="coerce"))
    broken = _broken(frame)
    bad = np.logical_or.reduce(list(broken.values()))
    places = np.flatnonzero(bad)
    masks = np.column_stack([mask[places] for mask in broken.values()])
    rows = raw[bad]
    rows.insert(0, "row", places + 1)
    rows.insert(1, "reasons", [list(compress(broken, row)) for row in masks])
    rows.to_parquet(folder / "bad.parquet", compression="zstd", index=False)
    good = frame[~bad].rename(columns=lambda name: name.lower().replace(" ", "_"))
    good = good.assign(note=good["note"].str.strip(), discount=good["discount"].fillna(0.0))
    good = good.assign(total=good["quantity"] * good["unit_price"] * (1 - good["discount"]))
    good.to_parquet(folder / "good.parquet", compression="zstd", index=False)
    return len(good)


def _broken(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return, for each rule, a mask of the rows that break it."""
    order, ordered, discount = frame["Order ID"], frame["Ordered At"], frame["Discount"]
    masks = {
        "id present": order.isna(),
        "id well formed": order.notna() & ~order.str.contains(r"^\d{10}$"),
        "id unique": order.notna() & order.duplicated(keep=False),
        "ordered is a time": ordered.isna(),
        "ordered in range": ordered.notna() & ~ordered.between(pd.Timestamp(_FIRST), pd.Timestamp(_LAST)),
        "country known": frame["Country"].notna() & ~frame["Country"].isin(COUNTRIES),
        "sku length": frame["SKU"].notna() & ~frame["SKU"].str.len().between(4, 8),
        "quantity in range": ~frame["Quantity"].between(1, 100),
        "price in range": ~frame["Unit Price"].between(0, 1000),
        "discount in range": discount.notna() & ~discount.between(0, 0.9),
        "weight is a number": frame["Weight"].isna(),
        "shipped after ordered": frame["Shipped At"] < ordered,
    }
    return {name: mask.to_numpy(dtype=bool) for name, mask in masks.items()}


def with_polars(source: Path, folder: Path) -> int:
    """Write good.parquet and bad.parquet, and return the number of good rows. Requires polars, which is not in the lock
    files."""
    pl: Any = importlib.import_module("polars")

    texts = dict.fromkeys(("Order ID", "Weight", *_TIMES), pl.String)
    raw = pl.read_csv(source, schema_overrides=texts).with_row_index("row", offset=1)
    order, ordered, shipped = pl.col("Order ID"), pl.col("at"), pl.col("shipped")
    frame = raw.with_columns(
        at=pl.col("Ordered At").str.to_datetime(_FORMAT, strict=False),
        shipped=pl.col("Shipped At").str.to_datetime(_FORMAT, strict=False),
        heavy=pl.col("Weight").cast(pl.Float64, strict=False),
    )
    rules = {
        "id present": order.is_null(),
        "id well formed": ~order.str.contains(r"^\d{10}$"),
        "id unique": order.is_not_null() & order.is_duplicated(),
        "ordered is a time": ordered.is_null(),
        "ordered in range": ~ordered.is_between(_FIRST.item(), _LAST.item()),
        "country known": ~pl.col("Country").is_in(COUNTRIES),
        "sku length": ~pl.col("SKU").str.len_chars().is_between(4, 8),
        "quantity in range": ~pl.col("Quantity").is_between(1, 100),
        "price in range": ~pl.col("Unit Price").is_between(0, 1000),
        "discount in range": ~pl.col("Discount").is_between(0, 0.9),
        "weight is a number": pl.col("heavy").is_null(),
        "shipped after ordered": shipped < ordered,
    }
    broken = frame.select(**{name: rule.fill_null(False) for name, rule in rules.items()})
    bad = broken.select(pl.any_horizontal(pl.all())).to_series()
    named = [pl.when(pl.col(name)).then(pl.lit(name)) for name in rules]
    reasons = broken.filter(bad).select(reasons=pl.concat_list(named).list.drop_nulls())
    pl.concat([raw.filter(bad), reasons], how="horizontal").write_parquet(folder / "bad.parquet")
    good = frame.filter(~bad).with_columns(**{"Ordered At": ordered, "Shipped At": shipped, "Weight": pl.col("heavy")})
    good = good.drop("row", "at", "shipped", "heavy").rename(lambda name: name.lower().replace(" ", "_"))
    good = good.with_columns(pl.col("note").str.strip_chars(), pl.col("discount").fill_null(0.0))
    total = pl.col("quantity") * pl.col("unit_price") * (1 - pl.col("discount"))
    good = good.with_columns(total=total)
    good.write_parquet(folder / "good.parquet")
    return len(good)
