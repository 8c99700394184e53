"""The results of all runs so far: results.json, and results.md made of it."""

import datetime
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.gpu.schedule import DONE, UNFINISHED, Case, Outcome, Part

JSON, MARKDOWN = "results.json", "results.md"


class Results:
    """The results in a folder; read if they are there, and written at every change.

    Attributes:
      values: `runs`, one for each start: `began`, `facts`, `budget`, `used` (seconds); and `cases`,
        by name: `state`, `seconds`, `ended`, and `result`, or `error` and `log`.
    """

    def __init__(self, folder: pathlib.Path, parts: Sequence[Part]):
        self._folder, self._parts = folder, parts
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / JSON
        self.values: dict[str, Any] = {"runs": [], "cases": {}}
        if path.exists():
            self.values = json.loads(path.read_text())

    @property
    def states(self) -> dict[str, str]:
        return {name: entry["state"] for name, entry in self.values["cases"].items()}

    def begin(self, budget: float, facts: Mapping[str, Any]) -> None:
        self.values["runs"].append({"began": _now(), "budget": budget, "facts": facts, "used": 0})
        self.save()

    def record(self, case: Case, outcome: Outcome, seconds: float) -> None:
        entry = {"state": outcome.state, "seconds": round(seconds, 1), "ended": _now()}
        if outcome.state == DONE:
            entry["result"] = outcome.result
        else:
            entry |= {"error": outcome.error, "log": list(outcome.log)}
        self.values["cases"][case.name] = entry
        self.save()

    def used(self, seconds: float) -> None:
        self.values["runs"][-1]["used"] = round(seconds, 1)
        self.save()

    def save(self) -> None:
        for name, text in (
            (JSON, json.dumps(self.values, indent=1) + "\n"),
            (MARKDOWN, markdown(self.values, self._parts)),
        ):
            partial = self._folder / f"{name}.part"
            partial.write_text(text)
            os.replace(partial, self._folder / name)


def line(entry: Mapping[str, Any] | None) -> tuple[str, str]:
    """State and finding of a case, in words."""
    if entry is None:
        return "not run", ""
    if entry["state"] != DONE:
        return entry["state"], entry["error"]
    result = entry["result"]
    states = {True: "good", False: "NOT AS IT SHOULD BE", None: "done"}
    return states[result["good"]], result["text"]


def markdown(values: Mapping[str, Any], parts: Sequence[Part]) -> str:
    """The page."""
    out = ["# The GPU hour", ""]
    if values["runs"]:
        facts = values["runs"][-1]["facts"]
        runs = (f"{run['began']}, {run['used']} of {run['budget']} s" for run in values["runs"])
        out += ["| | |", "|---|---|", *(f"| {k} | {_cell(v)} |" for k, v in facts.items()), ""]
        out += [f"Runs: {'; '.join(runs)}", ""]
    for part in parts:
        entries = [(case.name, values["cases"].get(case.name)) for case in part.cases]
        out += [f"## {part.title}", "", "| case | state | s | found |", "|---|---|---:|---|"]
        for name, entry in entries:
            state, text = line(entry)
            seconds = f"{entry['seconds']:.0f}" if entry else ""
            short = name.removeprefix(f"{part.name}/")
            out.append(f"| {short} | {state} | {seconds} | {_cell(text)} |")
        out.append("")
        for name, entry in entries:
            if entry and entry["state"] not in (DONE, UNFINISHED):
                out += [f"The last lines of {name}:", "", *(f"    {x}" for x in entry["log"]), ""]
    return "\n".join(out).rstrip() + "\n"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
