"""`sluice read`: shows or exports the published rows of a dataset."""

from pathlib import Path

import pyarrow as pa
from rich.console import Console

from deployment.commands import visible_line
from deployment.commands.user_paths import written_to
from deployment.deployed_stack import DeployedStack, store_of
from flows.published.export import export_rows
from flows.published.rows import PublishedRows, Selection, published_rows
from flows.refinery.words import as_cell, counted, shortened

SHOWN_ROWS = 20
_LONGEST_CELL = 40  # characters, on a terminal


def read(console: Console, cloud: DeployedStack, dataset: str, selection: Selection, export: Path | None) -> bool:
    """Show or export the current rows of a dataset; return False if some of them cannot be read.

    Raises:
        NothingProcessed: no file of the dataset has been processed.
        RunUnknown: no run matches the selection, or several do.
        RunNotCurrent: the selected run has no rows to read.
        ColumnsDiffer: a column's types in different runs cannot be combined.
        ExportUnknown, WorkbookTooSmall, PathUnwritable: the rows cannot be written to `export`.
    """
    with published_rows(store_of(cloud), dataset, selection) as rows:
        if export is None:
            _show(console, rows, selection)
        else:
            with written_to(export):
                written = export_rows(rows, export)
            console.out(f"wrote {written:,} of {counted(rows.rows, 'row')} to {export}")
    if rows.expired:
        kept = f"{'quarantine' if selection.quarantine else 'data'}/{dataset}/ is kept for {rows.kept_days} days"
        console.out(f"{counted(rows.expired, 'more file')}: the rows have expired, {kept}", style="dim")
    for address, reason in rows.unreadable.items():
        console.out(
            f"unreadable {visible_line(address)}: {visible_line(reason)}; its rows are missing", style="bold red"
        )
    return not rows.unreadable


def _show(console: Console, rows: PublishedRows, selection: Selection) -> None:
    """Print the selected rows as a table. The values are data, so they must not be logged."""
    table = rows.table()
    columns = [_cells(table, name, console.is_terminal) for name in table.column_names]
    widths = [max(map(len, column)) for column in columns]
    shown = _columns_that_fit(widths, console.width) if console.is_terminal else len(columns)
    for place, line in enumerate(zip(*columns[:shown], strict=True) if table.num_rows else ()):
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=False))
        console.out("  ".join(cells).rstrip(), style=None if place else "dim")
    where = "in quarantine" if selection.quarantine else "published"
    console.out(
        f"{table.num_rows:,} of {counted(rows.rows, 'row')} {where}, from {counted(rows.files, 'file')}", style="dim"
    )
    if shown < len(columns):
        names = ", ".join(visible_line(name) for name in table.column_names[shown:])
        console.out(f"and {counted(len(columns) - shown, 'more column')}: {names}", style="dim")
    if table.num_rows < rows.rows:
        option = " --quarantine" if selection.quarantine else ""
        console.out(f"For all rows: sluice read {rows.dataset}{option} --export {rows.dataset}.parquet", style="dim")


def _cells(table: pa.Table, name: str, is_terminal: bool) -> list[str]:
    """Return a column's name and values as printable strings, shortened on a terminal."""
    cells = [visible_line(name), *(visible_line(as_cell(value)) for value in table.column(name).to_pylist())]
    return [shortened(cell, _LONGEST_CELL) for cell in cells] if is_terminal else cells


def _columns_that_fit(widths: list[int], room: int) -> int:
    used = 0
    for place, width in enumerate(widths):
        used += width + 2
        if used - 2 > room:
            return max(place, 1)
    return len(widths)
