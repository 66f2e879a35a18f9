"""Generates a CSV file with orders, some of which break rules. The same number of rows and the same seed give the same
bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

COUNTRIES = ["AT", "BE", "CH", "DE", "ES", "FR", "IT", "PL"]
_NOTES = ["fragile", "gift, no invoice", 'say "hello" first', "  leave at the gate ", "Straße 12, Köln", "none", ""]
_CHANNELS = ["web", "app", "shop", "phone"]


def write_orders(path: Path, rows: int, seed: int = 1) -> None:
    """Write a CSV file with orders. For most rules, about 1% of the orders break the rule."""
    random = np.random.default_rng(seed)

    def some(share: float = 0.01) -> np.ndarray:
        return np.flatnonzero(random.random(rows) < share)

    numbers = np.array([f"{number:010d}" for number in random.permutation(rows)], dtype=object)
    ordered = np.datetime64("2024-01-01", "s") + np.sort(random.integers(0, 366 * 86_400, rows))
    shipped = ordered + random.integers(60, 20 * 86_400, rows)
    wrong = some()
    shipped[wrong] = ordered[wrong] - 3600
    ordered[some()] = np.datetime64("1999-12-31", "s")
    columns: dict[str, np.ndarray] = {
        "Order ID": numbers,
        "Ordered At": pd.Series(ordered).astype("str").to_numpy(dtype=object),
        "Customer": random.integers(1, 100_000, rows),
        "Country": random.choice(COUNTRIES, rows).astype(object),
        "SKU": random.choice([f"SKU-{number:03d}" for number in range(500)], rows).astype(object),
        "Quantity": random.integers(1, 101, rows),
        "Unit Price": np.round(random.uniform(1, 999, rows), 2),
        "Discount": np.round(random.uniform(0, 0.9, rows), 2),
        "Weight": np.round(random.uniform(0.1, 50, rows), 3).astype(str).astype(object),
        "Shipped At": pd.Series(shipped).astype("str").to_numpy(dtype=object),
        "Channel": random.choice(_CHANNELS, rows),
        "Note": random.choice(_NOTES, rows),
    }
    again = some()
    numbers[again] = random.choice(numbers, len(again))  # give some orders the IDs of other orders
    wrong = some()
    numbers[wrong] = "X" + pd.Series(numbers[wrong]).str.slice(1)
    numbers[some(0.005)] = ""
    columns["Ordered At"][some()] = "2024-02-30 10:00:00"
    columns["Ordered At"][some(0.001)] = "yesterday"
    columns["Shipped At"][some(0.2)] = ""
    for name, value in (("Country", "XX"), ("SKU", "SKU-TOO-LONG"), ("Quantity", 500), ("Unit Price", -1.0)):
        columns[name][some()] = value
    columns["Discount"][some()] = 1.5
    columns["Discount"][some(0.3)] = np.nan
    columns["Weight"][some()] = "unknown"
    pd.DataFrame(columns).to_csv(path, index=False, lineterminator="\n")
