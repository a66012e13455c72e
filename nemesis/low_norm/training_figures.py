"""Figures 3, A2 and A3: norms, accuracies and PAN's selections over the epochs of a training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import MaxNLocator

from nemesis.report.figures import COLOURS, plt

from .drawing import BETTER, LEARNED, WORSE, dress, file_stem, save
from .history import Training


def draw_low_norm_over_epochs(trainings: Sequence[Training], path: Path) -> Path:
    """Draw Figure 3: accuracies of learned and corrupted prompts, and the mean norm; by run."""
    figure, axes = plt.subplots(
        2,
        len(trainings),
        figsize=(4.6 * len(trainings) + 0.6, 5.4),
        squeeze=False,
        sharex="col",
        sharey="row",
        layout="constrained",
    )
    rows: list[list[Any]] = []
    for (upper, lower), training in zip(axes.T, trainings, strict=True):
        _draw_accuracies(upper, training)
        lower.plot(
            [epoch.number for epoch in training.epochs],
            [epoch.mean_norm for epoch in training.epochs],
            color=COLOURS[2],
        )
        dress(upper)
        upper.set_title(training.title, fontsize=10)
        dress(lower, xlabel="epoch")
        lower.xaxis.set_major_locator(MaxNLocator(integer=True))
        rows += _low_norm_rows(training)
    axes[0, 0].set_ylabel("test accuracy (%)")
    axes[1, 0].set_ylabel("mean norm of the vectors")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    header = ["run", "epoch", "mean_norm", "accuracy", "factor", "position", "corrupted_accuracy"]
    return save(figure, path, header, rows)


def _draw_accuracies(axis: Any, training: Training) -> None:
    better: list[tuple[int, float]] = []
    worse: list[tuple[int, float]] = []
    factors = sorted({c.value for _, study in training.studied for c in study.entries})
    label = "one vector times " + ", ".join(f"{factor:g}" for factor in factors)
    for number, study in training.studied:
        for entry in study.entries.values():
            point = (number, entry["accuracy"])
            (better if entry["accuracy_change"] > 0 else worse).append(point)
    kinds = (
        (worse, {"color": WORSE, "marker": "."}, f"{label}: not better"),
        (better, {"color": BETTER, "marker": "^"}, f"{label}: better"),
    )
    for points, style, name in kinds:
        x, y = zip(*points, strict=True) if points else ((), ())
        axis.plot(x, y, linestyle="", markersize=4, alpha=0.8, label=name, **style)
    learned = [(number, study.original["accuracy"]) for number, study in training.studied]
    x, y = zip(*learned, strict=True)
    axis.plot(x, y, color=LEARNED, linewidth=1.6, label="learned")


def _low_norm_rows(training: Training) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for epoch in training.epochs:
        common = [str(training.run.path), epoch.number, epoch.mean_norm, epoch.accuracy]
        entries = epoch.study.entries.values() if epoch.study else ()
        rows += [[*common, e["value"], e["position"], e["accuracy"]] for e in entries]
        if not entries:
            rows.append([*common, None, None, None])
    return rows


def draw_process(training: Training, folder: Path) -> Path:
    """Draw Figure A2 or A3: one run's loss, test accuracy, norms and selections by position."""
    selects = any(epoch.selections for epoch in training.epochs)
    count = 4 if selects else 3
    figure, axes = plt.subplots(
        1, count, figsize=(3.5 * count + 0.4, 3.2), squeeze=False, layout="constrained"
    )
    numbers = [epoch.number for epoch in training.epochs]
    loss, accuracy, norms, *rest = axes[0]
    loss.plot(numbers, [epoch.loss for epoch in training.epochs], color=COLOURS[0])
    dress(loss, title="training loss")
    tested = [(e.number, e.accuracy) for e in training.epochs if e.accuracy is not None]
    accuracy.plot(*zip(*tested, strict=True), color=COLOURS[1], marker=".")
    dress(accuracy, title="test accuracy (%)")
    _draw_map(norms, numbers, [epoch.norms for epoch in training.epochs], "norm of each vector")
    for axis in rest:
        chosen = [epoch.selections or [] for epoch in training.epochs]
        _draw_map(axis, numbers, chosen, "times selected by PAN", counts=True)
    for axis in axes[0]:
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(training.title, fontsize=11)
    facts = training.run.facts
    parts = [facts[key] for key in ("method", "dataset")]
    stem = file_stem("figure_a2", *parts, f"{facts['shots']}shots", f"seed{facts['seed']}")
    return save(figure, folder / f"{stem}.png", *_process_data(training, selects))


def _draw_map(
    axis: Any, numbers: list[int], rows: list[list[Any]], title: str, counts: bool = False
) -> None:
    """Draw a heat map over epochs and positions, with a colour map that is readable in grey.

    The colours of counts start at 0, even if all are 0.
    """
    columns = list(zip(*rows, strict=True))
    ends = (0, max(1, *map(max, columns))) if counts else (None, None)
    mesh = axis.pcolormesh(
        *(numbers, range(len(columns)), columns), cmap="cividis", vmin=ends[0], vmax=ends[1]
    )
    axis.set(title=title, ylabel="position")
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    ticks = MaxNLocator(integer=True) if counts else None
    axis.figure.colorbar(mesh, ax=axis, ticks=ticks)


def _process_data(training: Training, selects: bool) -> tuple[list[str], list[list[Any]]]:
    positions = range(training.run.length)
    header = ["epoch", "loss", "accuracy", *(f"norm_{j}" for j in positions)]
    if selects:
        header += [f"selections_{j}" for j in positions]
    rows = [
        [epoch.number, epoch.loss, epoch.accuracy, *epoch.norms, *(epoch.selections or [])]
        for epoch in training.epochs
    ]
    return header, rows
