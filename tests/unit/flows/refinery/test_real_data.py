"""Real data sets are accepted by the contracts that are proposed for them, and by the shipped ones.

Iris, wine and breast cancer are part of scikit-learn (BSD-3-Clause; the data are from the UCI repository, CC BY 4.0).
The penguins are part of this project (CC0, see deployment/samples/README.md).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from deployment import PROJECT_ROOT
from flows.refinery.contract.loading import load_contract
from flows.refinery.propose.proposal import propose_contract
from flows.refinery.refine import Refined, refine_file

pytestmark = pytest.mark.heavy

_PENGUINS = PROJECT_ROOT / "deployment" / "samples" / "penguins.csv"


def _bunch(name: str) -> Any:
    from sklearn import datasets  # imported only here, because it takes a second

    return getattr(datasets, f"load_{name}")(as_frame=True)


def _frame(name: str) -> pd.DataFrame:
    bunch = _bunch(name)
    frame: pd.DataFrame = bunch.frame
    return frame.assign(name=[bunch.target_names[target] for target in frame["target"]])


def _csv(frame: pd.DataFrame, path: Path) -> None:
    frame.to_csv(path, index=False)


def _json_lines(frame: pd.DataFrame, path: Path) -> None:
    frame.to_json(path, orient="records", lines=True)


def _parquet(frame: pd.DataFrame, path: Path) -> None:
    frame.to_parquet(path, index=False)


def refine(sample: Path, contract_text: str, folder: Path) -> Refined:
    """Refine a file with a contract for the dataset "real", and check that the file is not rejected."""
    (folder / "real").mkdir()
    (folder / "real" / "contract.yaml").write_text(contract_text)
    contract = load_contract(folder / "real")
    work = folder / "work"
    work.mkdir()
    refined = refine_file(sample, contract, work)
    assert not refined.rejected, refined.rejected
    return refined


@pytest.mark.parametrize("write", [_csv, _json_lines, _parquet])
@pytest.mark.parametrize(("name", "rows"), [("iris", 150), ("wine", 178), ("breast_cancer", 569)])
def test_a_real_data_set_passes_the_contract_that_is_proposed_for_it(
    name: str, rows: int, write: Callable[[pd.DataFrame, Path], None], tmp_path: Path
) -> None:
    sample = tmp_path / "sample"
    write(_frame(name), sample)
    refined = refine(sample, propose_contract(sample, "real").text, tmp_path)
    assert (refined.rows_in, sum(refined.quarantined.values())) == (rows, 0)
    assert refined.rows_published + sum(refined.dropped.values()) == rows


@pytest.mark.parametrize("write", [_csv, _json_lines, _parquet])
@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "diabetes"])
def test_a_real_data_set_is_published_completely_with_the_default_contract(
    name: str, write: Callable[[pd.DataFrame, Path], None], tmp_path: Path
) -> None:
    sample = tmp_path / "sample"
    frame: pd.DataFrame = _bunch(name).frame
    write(frame, sample)
    # pandas writes numbers to JSON with fewer digits.
    read = pd.read_json(sample, lines=True, precise_float=True) if write is _json_lines else frame
    contract = load_contract(PROJECT_ROOT / "flows" / "contracts" / "default")
    refined = refine_file(sample, contract, tmp_path)
    assert (refined.rejected, refined.quarantined, refined.rows_published) == ((), {}, len(frame))
    published = pd.read_parquet(refined.outputs[0].path)
    assert (published.to_numpy() == read.to_numpy()).all()


def test_the_penguins_pass_the_contract_that_is_proposed_for_them(tmp_path: Path) -> None:
    refined = refine(_PENGUINS, propose_contract(_PENGUINS, "real").text, tmp_path)
    assert (refined.rows_in, refined.quarantined, refined.rows_published) == (344, {}, 344)


def test_the_wine_data_is_scaled_and_encoded_for_training(tmp_path: Path) -> None:
    sample = tmp_path / "wine.csv"
    wines = _frame("wine")
    _csv(wines, sample)
    refined = refine(
        sample,
        """
dataset: real
expectations:
  - expect_column_values_to_be_between: {column: alcohol, min_value: 10, max_value: 16}
  - expect_column_values_to_be_in_set: {column: name, value_set: [class_0, class_1, class_2]}
preprocess:
  - clean_column_names
  - standardize: {columns: [alcohol]}
  - one_hot_encode: {columns: [name]}
""",
        tmp_path,
    )
    published = pd.read_parquet(refined.outputs[0].path)
    expected = (wines["alcohol"] - wines["alcohol"].mean()) / wines["alcohol"].std(ddof=0)
    assert published["alcohol"].to_numpy() == pytest.approx(expected.to_numpy())
    assert "od280_od315_of_diluted_wines" in published.columns
    classes = [f"name_class_{number}" for number in range(3)]
    assert [int(published[column].sum()) for column in classes] == [59, 71, 48]
    assert refined.fitted


def test_penguins_without_measurements_are_quarantined_by_the_shipped_contract(tmp_path: Path) -> None:
    contract = load_contract(PROJECT_ROOT / "flows" / "contracts" / "penguins")
    refined = refine_file(_PENGUINS, contract, tmp_path)
    assert (refined.rows_in, refined.rows_published) == (344, 342)
    assert refined.quarantined == {"missing_value(bill_length_mm)": 2}
