"""Writes the table of docs/runs.md: what was done to runs and files, and what happened.

`python -m tests.faults.table` runs every test that bears `@pytest.mark.fault(done, happens)`, the
slow ones too, and writes a row for each pair of texts. Where a test fails, the table stays as it
is: `python -m tests.faults.table --again` runs those that did not pass, and the files that have new
faults, and writes it if they do.
"""

import ast
import datetime
import json
import pathlib
import platform
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

TESTS = pathlib.Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "runs.md"
KEPT = TESTS.parent / ".pytest_cache" / "faults.json"
START, END = "<!-- faults: begin -->", "<!-- faults: end -->"


class Tried:
    """A pytest plugin that keeps what became of each case.

    Attributes:
      cases: {test: {"fault": (file, done, happens), "outcome": of pytest, "inputs": drawn}}.
    """

    def __init__(self, cases: dict[str, dict[str, Any]]):
        self.cases = cases

    def pytest_runtest_logreport(self, report):
        if report.when != "call" and report.passed:
            return
        properties = dict(report.user_properties)  # none of a test that ended its process
        self.cases[report.nodeid] = {
            "fault": [report.nodeid.partition("::")[0], *properties.get("fault", ())],
            "outcome": report.outcome,
            "inputs": properties.get("inputs", 0),
        }

    def of(self, fault: tuple[str, str, str], outcome: str) -> list[dict[str, Any]]:
        """The cases of a fault with an outcome."""
        every = self.cases.values()
        return [c for c in every if c["fault"] == list(fault) and c["outcome"] == outcome]


def marked() -> Iterator[tuple[str, str, str]]:
    """File, done and happens of each mark in the tests, in the order of the files."""
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault":
                done, happens = (ast.literal_eval(argument) for argument in node.args)
                yield str(path.relative_to(TESTS.parent)), done, happens


def row(tried: Tried, fault: tuple[str, str, str]) -> str:
    """A row of the table."""
    passed = tried.of(fault, "passed")
    inputs = sum(case["inputs"] for case in passed)
    count = f"{inputs:,} inputs" if inputs else str(len(passed))
    return f"| {fault[1]} | {fault[2]} | {count if passed else 'not on this machine'} |"


def table(tried: Tried) -> str:
    """The table, a part for each file of tests."""
    faults = list(dict.fromkeys(marked()))
    passed = [case for case in tried.cases.values() if case["outcome"] == "passed"]
    total, inputs = len(passed), sum(case["inputs"] for case in passed)
    lines = [
        f"{total} cases and {inputs:,} drawn inputs, all passed, on Python "
        f"{platform.python_version()}, {datetime.date.today()}: `python -m tests.faults.table`."
    ]
    for file in dict.fromkeys(fault[0] for fault in faults):
        heading = ast.get_docstring(ast.parse((TESTS.parent / file).read_text())) or file
        lines += ["", f"**{heading.splitlines()[0].rstrip('.')}** (`{file}`)", ""]
        lines += ["| what is done | what happens | tried |", "|---|---|---:|"]
        lines += [row(tried, fault) for fault in faults if fault[0] == file]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    again = "--again" in arguments
    tried = Tried(json.loads(KEPT.read_text()) if again else {})
    if again:
        tests = [name for name, case in tried.cases.items() if case["outcome"] == "failed"]
        known = [case["fault"] for case in tried.cases.values()]
        tests += sorted({fault[0] for fault in marked() if list(fault) not in known})
    else:
        tests = sorted({fault[0] for fault in marked()})
    options = ["-m", "fault", *(each for each in arguments if each != "--again")]
    if tests:
        pytest.main([*(str(TESTS.parent / test) for test in tests), *options], plugins=[tried])
    KEPT.parent.mkdir(exist_ok=True)
    KEPT.write_text(json.dumps(tried.cases, indent=0))
    failed = [name for name, case in tried.cases.items() if case["outcome"] == "failed"]
    if failed or not tried.cases:
        return 1
    before, _, rest = PAGE.read_text().partition(START)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{START}\n{table(tried)}\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
