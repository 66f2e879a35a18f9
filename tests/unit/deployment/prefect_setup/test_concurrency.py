"""The limits as they are declared; tests/chain/test_concurrency.py applies them."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployment.prefect_setup.concurrency import Concurrency, ConcurrencyInvalid, declared


def test_every_dataset_has_the_common_limit_unless_it_has_one_of_its_own() -> None:
    limits = Concurrency(uploads=20, each_dataset=10, datasets={"orders": 1}).limits(["orders", "penguins"])
    assert limits == {"sluice-uploads": 20, "sluice-uploads-orders": 1, "sluice-uploads-penguins": 10}


def test_sluices_own_file_is_valid_and_no_dataset_may_take_every_slot() -> None:
    own = declared()
    assert own.each_dataset < own.uploads


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ("uploads: 0\neach_dataset: 1", "uploads"),  # no upload would ever get a slot
        ("uploads: 2\neach_dataset: 1\ndatasets: {orders: many}", "datasets.orders"),
        ("uploads: 2\neach_dataset: 1\ndataset: {orders: 1}", "dataset"),
        ("", "concurrency.yaml"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_with_its_place(tmp_path: Path, written: str, place: str) -> None:
    file = tmp_path / "concurrency.yaml"
    file.write_text(written)
    with pytest.raises(ConcurrencyInvalid, match=place):
        declared(file)
