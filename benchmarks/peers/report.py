"""From the benchmark's JSON to Markdown.

    python -m benchmarks.peers.report FILE.json [FILE.json ...] [--markdown=FILE]

puts the rows of all files into one table. `--markdown` writes it between the markers of a page that
has them (docs/speed.md), or else into a file of its own.
"""

import argparse
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
COLUMNS = ("ours", "before", "torch", "torch.compile", "Keras", "Keras, XLA")
WORK = {"train": "training step", "infer": "inference"}


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """Times, memory and what they were measured on."""
    rows = [row for result in results for row in result["rows"]]
    titles = [_title(row) for row in rows]
    rows.sort(key=lambda row: titles.index(_title(row)))  # works of one network side by side
    columns = [name for name in COLUMNS if any(_entries(row, name) for row in rows)]
    parts = [*_setting(results), "", *_times(rows, columns), "", *_memory(rows, columns)]
    notes = _notes(rows)
    return "\n".join([*parts, *([""] if notes else []), *notes]) + "\n"


def _entries(row: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """A contender's entries, one for each repetition."""
    return [e for again in row["again"] for e in again["entries"] if e["name"] == name]


def _timed(row: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    return [entry for entry in _entries(row, name) if entry.get("seconds")]


def _setting(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Machine, versions and options: a line for all files, or for each kind of machine and type of
    numbers."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        machine, options = result["machine"], result["options"]
        trial = "**A trial on a machine that others may have used**; " if options["busy_ok"] else ""
        words = (
            f"{trial}{machine['processor']}, {machine['cores']} cores; "
            f"{machine['memory'] / 2**30:.0f} GiB; {options['dtype']}; Python {machine['python']}"
        )
        groups.setdefault(words, []).append(result)
    return [f"{words}; {_merged(group)}." for words, group in groups.items()]


def _merged(results: Sequence[Mapping[str, Any]]) -> str:
    """What files of one machine say of versions, threads, devices, turns and days."""
    entries = [
        entry
        for result in results
        for row in result["rows"]
        for again in row["again"]
        for entry in again["entries"]
        if "versions" in entry
    ]
    versions = {name: v for entry in entries for name, v in entry["versions"].items()}
    devices = dict.fromkeys(e["device"] for e in entries if e["device"] != "cpu")
    turns = sorted({result["options"]["turns"] for result in results})
    again = sorted({result["options"]["again"] for result in results})
    parts = [
        *devices,
        ", ".join(f"{name} {version}" for name, version in versions.items()),
        f"threads: {', '.join(dict.fromkeys(entry['threads'] for entry in entries))}",
        f"turns: {'-'.join(map(str, turns[:: max(1, len(turns) - 1)]))}",
        f"repetitions: {'-'.join(map(str, again[:: max(1, len(again) - 1)]))}",
        ", ".join(sorted({result["made"][:10] for result in results})),
    ]
    return "; ".join(parts)


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    marks = ["---", "---", *["---:"] * (len(header) - 2)]
    return [f"| {' | '.join(cells)} |" for cells in (header, marks, *lines)]


def _times(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """Medians with quartiles, over all turns, and the ratio of each repetition's medians."""
    lines = [
        [_title(row), WORK[row["work"]], *(_time(row, column) for column in columns)]
        for row in rows
    ]
    return _table(["network", "work", *(f"{name}, ms" for name in columns)], lines)


def _title(row: Mapping[str, Any]) -> str:
    images, (height, width) = row["images"], row["size"]
    return f"{row['title']} {images}x{height}x{width}"


def _time(row: Mapping[str, Any], name: str) -> str:
    timed = _timed(row, name)
    if not timed:
        return "failed" if _entries(row, name) else ""
    low, median, high = 1e3 * np.percentile(
        np.concatenate([e["seconds"] for e in timed]), (25, 50, 75)
    )
    digits = 0 if median >= 100 else 1
    time = f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
    found = [f"{ratio:.2f}" for ratio in ratios(row, name)] if name != "ours" else []
    return f"{time}, **{', '.join(found)}**" if found else time


def ratios(row: Mapping[str, Any], name: str) -> list[float]:
    """A contender's median over ours, of each repetition in which both have times."""
    found = []
    for again in row["again"]:
        medians = {
            entry["name"]: np.median(entry["seconds"])
            for entry in again["entries"]
            if entry.get("seconds")
        }
        if {"ours", name} <= medians.keys():
            found.append(float(medians[name] / medians["ours"]))
    return found


def _memory(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """The largest peak of the repetitions: in the steps, and in parentheses at the start."""

    def cell(row, name):
        kept = [entry["memory"] for entry in _timed(row, name)]
        if not kept:
            return ""
        device = [memory["device"] for memory in kept if memory["device"]]
        if device:
            return f"{max(device) / 2**20:,.0f}"
        steps, start, base = (
            max(memory[key] for memory in kept) / 2**20 for key in ("steps", "start", "base")
        )
        return f"{steps:,.0f} ({start:,.0f}; {base:,.0f})"

    lines = [
        [_title(row), WORK[row["work"]], *(cell(row, column) for column in columns)] for row in rows
    ]
    return _table(["network", "work", *(f"{name}, MiB" for name in columns)], lines)


def _notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Who failed and why, which networks differ, and when others used the machine."""
    notes: dict[str, None] = {}
    for row in rows:
        place = f"{_title(row)}, {WORK[row['work']]}"
        for again in row["again"]:
            for entry in again["entries"]:
                if "error" in entry:
                    notes[f"- {place}: {entry['name']} failed: {entry['error']}"] = None
            for note in again["notes"]:
                notes[f"- {_title(row)}: {note}"] = None
            if again["others"] > 0.1:
                notes[f"- {place}: others used {again['others']:.2f} cores meanwhile"] = None
    return list(notes)


def write(text: str, path: pathlib.Path) -> None:
    """Writes the text between the markers of a page, or a file of its own where there is none."""
    old = path.read_text() if path.is_file() else ""
    if BEGIN in old and END in old:
        before, _, rest = old.partition(BEGIN)
        text = f"{before}{BEGIN}\n\n{text}\n{END}{rest.partition(END)[2]}"
    path.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    parser.add_argument("--markdown", type=pathlib.Path)
    options = parser.parse_args()
    text = markdown([json.loads(path.read_text()) for path in options.files])
    print(text)
    if options.markdown:
        write(text, options.markdown)


if __name__ == "__main__":
    main()
