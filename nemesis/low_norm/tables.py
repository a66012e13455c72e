"""Tables of the occurrence frequencies (A2, A3)."""

from collections.abc import Mapping, Sequence

from nemesis.report.table import Cell, Entry, Table

from .corruption import REPLACE, RESCALE
from .frequency import Key, SeedMean, Setting

TITLES = {
    REPLACE: "Low-Norm Effect under REPLACE (as Table A2)",
    RESCALE: "Low-Norm Effect under RESCALE (as Table A3)",
}
CAPTIONS = {
    REPLACE: (
        "Number of positions where replacing the learned vector by normal noise raises the test "
        "accuracy (means over the seeds). The arrow shows whether the vectors' mean norm falls or "
        "rises. The values are standard deviations, as in the released code of the paper, which "
        "calls them variances."
    ),
    RESCALE: (
        "Number of positions where multiplying the learned vector by the factor raises the test "
        "accuracy (means over the seeds). The arrow shows whether the vectors' norm falls or "
        "rises. Low-norm sums the factors below 1."
    ),
}
NAMES = {REPLACE: "std", RESCALE: "factor"}
DOWN, UP = "↓", "↑"


def frequency_tables(cells: Mapping[Key, SeedMean], settings: Sequence[Setting]) -> list[Table]:
    """Make a table for each kind of corruption among the settings; see `frequency_table`."""
    kinds = dict.fromkeys(kind for kind, _ in settings)
    return [frequency_table(cells, settings, kind) for kind in kinds]


def frequency_table(cells: Mapping[Key, SeedMean], settings: Sequence[Setting], kind: str) -> Table:
    """Make a table with a row per method, dataset and shots, and a column per setting of `kind`.

    Args:
        cells: see `group_by_seed`.
        settings: of which other kinds are ignored.
        kind: replace or rescale.
    """
    columns = [setting for setting in settings if setting[0] == kind]
    header = ["method", "dataset", "shots", "seeds", "of"]
    header += [f"{NAMES[kind]} {value:g}" for _, value in columns]
    rows: list[list[Entry]] = []
    for (method, dataset, shots), cell in cells.items():
        row: list[Entry] = [method, dataset, shots, len(cell.studies), cell.length]
        row += [_cell(cell, setting) for setting in columns]
        rows.append([*row, *([cell.low_norm_frequency(columns)] if kind == RESCALE else [])])
    if kind == RESCALE:
        header.append("low-norm")
    return Table(f"low_norm_{kind}", TITLES[kind], header, rows, CAPTIONS[kind])


def _cell(cell: SeedMean, setting: Setting) -> Entry:
    """Return the frequency and an arrow; None if not every position was tested."""
    frequency = cell.frequency(setting)
    if frequency is None:
        return None
    change = cell.norm_change(setting)
    return Cell(f"{frequency} {UP if change > 0 else DOWN if change < 0 else ''}".strip())
