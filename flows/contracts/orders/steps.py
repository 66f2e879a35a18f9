"""Custom preprocessing steps for orders."""

import pandas as pd


def add_revenue(orders: pd.DataFrame) -> pd.DataFrame:
    """Add `revenue` in euros: the price that the customer paid for the order, to the cent."""
    revenue = orders["quantity"] * orders["unit_price"] * (1 - orders["discount"])
    return orders.assign(revenue=revenue.round(2))
