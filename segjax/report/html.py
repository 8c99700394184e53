"""The report of a run: one HTML file with everything in it, readable without a network."""

import os
import statistics
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from segjax.data.classes import ClassTable
from segjax.report import charts, matrix, measures, page, plots, sample_figures, tables

_OPTION = ("name", "value")  # header of the option tables


def write_report(
    path: str | os.PathLike,
    *,
    title: str,
    config: Mapping,
    config_diff: Mapping,
    environment: Mapping,
    history: Sequence[Mapping],
    results: Mapping[str, Mapping],
    confusion: Mapping[str, np.ndarray],
    classes: ClassTable,
    samples: Mapping[str, Sequence[Mapping]],
    protocol: str,
    seconds: float | None,
    notes: Sequence[str],
    data: Mapping[str, Mapping] | None = None,
) -> None:
    """Writes the report of a run to `path`; its folder is made. A part without data is left out.

    The first screen says how good the run is, on what, and under which protocol: the mIoU of the
    split "test", or of the first one.

    Args:
      path: the file, `report.html`.
      title: heading of the page.
      config: all options, nested or with dotted names.
      config_diff: the options that differ from the base config, as name -> this run's value, or
        name -> {"base": value, "run": value}; nested or with dotted names.
      environment: versions, device, commit, command, ...; "parameters" (int) is a headline too.
      history: rows of `metrics.jsonl` (see `tables.series`).
      results: split -> metrics (see `tables.result_rows`); a split may also have `protocols`
        (`segjax.metrics.compare_protocols`), the `protocol` of its own numbers, and the summaries
        `boundary`, `by_object`, `calibration` of the modules of these names.
      confusion: split -> pixels [k, k], row = label, column = prediction.
      classes: the class table.
      samples: heading ("best", "median", ...) -> samples (see `plots.sample_grid`).
      protocol: how the numbers were measured, printed with them.
      seconds: duration of the training, None if unknown.
      notes: sentences shown at the top, such as warnings.
      data: split -> "images" and "fingerprint" of the data set's files.

    Raises:
      ValueError: if results, confusion or samples do not fit the class table or each other.
    """
    samples = {heading: group for heading, group in samples.items() if group}
    headline = "test" if "test" in results else next(iter(results), "")
    sections = {
        "Results": _results(results, classes, protocol, headline) if results else "",
        "IoU by class": _bars(results, classes) if results else "",
        "Training": _curves(history),
        "Images": sample_figures.figures(samples, classes) if samples else "",
        "Confusion": _confusion(confusion, classes, headline),
        "Boundaries": measures.boundaries(results, classes),
        "Size and distance": measures.by_object(results, headline),
        "Calibration": measures.calibration(results),
        "The run": _run(config_diff, config, environment, data or {}),
    }
    remarks = "".join(f"<p>{escape(note)}</p>" for note in notes)
    head = _lead(results, classes, config, protocol, headline)
    head += page.tiles(_tiles(history, results, environment, seconds, headline))
    head += f"<aside>{remarks}</aside>" if notes else ""
    page.write_page(path, title, sections, head)


def _lead(results, classes: ClassTable, config: Mapping, protocol: str, headline: str) -> str:
    """How good, on what, under which protocol."""
    if not results:
        return ""
    numbers = results[headline]
    images = numbers.get("images")
    of = "" if images is None else f"{tables.format_number(images)} images, "
    name = tables.flat_options(config).get("data.name", "")
    data = f" of {escape(str(name))}" if name else ""
    by = f" by the protocol {escape(numbers['protocol'])}" if "protocol" in numbers else ""
    return (
        f'<p class="lead"><b>{tables.format_number(numbers["miou"])}</b> mIoU on the '
        f"{escape(headline)} split{data} ({of}{len(classes)} classes){by}</p>"
        f'<p class="quiet">Protocol: {escape(protocol)}.</p>'
    )


def _tiles(history, results, environment, seconds, headline) -> list[tuple[str, str, str]]:
    """The other headline numbers: (name, value, remark) each."""
    tiles = []
    if results:
        numbers = results[headline]
        for key, name, told in (
            ("global_accuracy", "accuracy", "of all pixels"),
            ("class_average_accuracy", "class accuracy", "mean over classes"),
        ):
            tiles.append((f"{headline} {name}", tables.format_number(numbers[key]), told))
        if numbers.get("boundary"):
            bf = tables.format_number(numbers["boundary"]["bf"])
            tiles.append((f"{headline} BF score", bf, "boundaries"))
        if numbers.get("calibration"):
            ece = tables.format_number(numbers["calibration"]["ece"])
            tiles.append((f"{headline} ECE", ece, "calibration error"))
    best = tables.best_step(history)
    if best:
        tiles.append(("best validation mIoU", f"{best[1]:.4f}", f"at step {best[0]:,}"))
    if seconds is not None:
        steps = tables.series(history, "train", "loss")[0]
        told = f"{steps[-1]:,} steps" if len(steps) else ""
        tiles.append(("training time", tables.format_duration(seconds), told))
    _, rates = tables.series(history, "train", "images_per_second")
    if np.any(np.isfinite(rates)):
        rate = statistics.median(rates[np.isfinite(rates)])
        tiles.append(("images per second", f"{rate:,.1f}", "median in training"))
    if isinstance(environment.get("parameters"), int):
        count = environment["parameters"]
        tiles.append(("parameters", f"{count / 1e6:.3g} M", f"{count:,}"))
    return tiles


def _results(results: Mapping, classes: ClassTable, protocol: str, headline: str) -> str:
    overall, _ = tables.result_rows(results, classes)
    table = page.table(("", *results), [(name, *values) for name, values in overall])
    note = f"{escape(protocol)}. {tables.ABSENT}: not measured, or does not occur."
    others = measures.protocols(results, headline)
    return f'{table}<p class="quiet">Protocol: {note}</p>{others}'


def _bars(results: Mapping, classes: ClassTable) -> str:
    """One row a class, in id order; in it one bar a split, in the class's colour."""
    rows = [
        (page.swatch(name, color), {s: r["iou"][k] for s, r in results.items()}, page.fill(color))
        for k, (name, color) in enumerate(zip(classes.names, classes.palette, strict=True))
    ]
    return f'<div class="{"many" if len(classes) > 24 else ""}">{measures.bars(rows)}</div>'


def _curves(history: Sequence[Mapping]) -> str:
    """Loss, mIoU, accuracy and learning rate against the step; of training and validation."""

    def line(name: str, split: str, key: str, colour: int) -> list[charts.Line]:
        steps, values = tables.series(history, split, key)
        if split == "val" or len(steps) < 20:
            return [charts.Line(name, steps, values, colour)]
        smooth = charts.Line(f"{name} (smoothed)", steps, plots.smooth(values), colour)
        return [charts.Line("", steps, values, colour, raw=True), smooth]

    best = tables.best_step(history)
    remark = f"best {best[1]:.4f} at step {best[0]:,}" if best else ""
    rate = [charts.Line("", *tables.series(history, "train", "learning_rate"), 3)]
    miou = line("train", "train", "miou", 0) + line("val", "val", "miou", 1)
    accuracy = line("train", "train", "accuracy", 0) + line("val", "val", "global_accuracy", 1)
    accuracy += line("val, mean over classes", "val", "class_average_accuracy", 2)
    loss = line("train", "train", "loss", 0) + line("val", "val", "loss", 1)
    drawn = charts.line_chart("Loss", loss, "step")
    drawn += charts.line_chart("mIoU", miou, "step", (0, 1), remark)
    drawn += charts.line_chart("Accuracy", accuracy, "step", (0, 1))
    drawn += charts.line_chart("Learning rate", rate, "step")
    return f'<div class="charts">{drawn}</div>' if drawn else ""


def _confusion(confusion: Mapping[str, np.ndarray], classes: ClassTable, headline: str) -> str:
    """Matrix and most confused pairs of every split; the headline's open."""
    body = ""
    for split, counts in confusion.items():
        svg, told = matrix.confusion_svg(counts, classes)
        pairs = [
            (f"{true} → {predicted}", f"{100 * share:.1f} %", f"{pixels:,}")
            for true, predicted, share, pixels in tables.most_confused(
                counts, classes, 10 if len(classes) <= 20 else 25
            )
        ]
        worst = page.table(("truth → prediction", "of the truth", "pixels"), pairs)
        inside = (
            f'<p class="quiet">{escape(told)}</p>'
            f'<div class="pair{" wide" if len(classes) > 12 else ""}"><div class="scroll">{svg}'
            f"</div><div><h3>Most confused</h3>{worst}</div></div>"
        )
        body += page.folded(split, inside, is_open=split == headline or len(confusion) == 1)
    return body


def _run(config_diff: Mapping, config: Mapping, environment: Mapping, data: Mapping) -> str:
    """What differs from the base config, all options, machine and versions, the data."""
    changes = [
        (name, v["base"], v["run"]) if isinstance(v, Mapping) and v else (name, "", v)
        for name, v in tables.flat_options(config_diff).items()
    ]
    body = ""
    if changes:
        listed = page.table(("option", "base", "this run"), changes, "options")
        body += f"<h3>Options that differ from the base config</h3>{listed}"
    options = tables.flat_options(config)
    if options:
        listed = page.table(_OPTION, options.items(), "options")
        body += page.folded(f"all {len(options)} options", listed)
    if data:
        rows = [
            (split, f"{found['images']:,}", found["fingerprint"]) for split, found in data.items()
        ]
        listed = page.table(("split", "images", "fingerprint"), rows, "options")
        body += f"<h3>Data</h3>{listed}"
    if environment:
        machine = tables.flat_options(environment)
        body += f"<h3>Machine and versions</h3>{page.table(_OPTION, machine.items(), 'options')}"
    return body
