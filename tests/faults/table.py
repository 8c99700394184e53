"""Writes the table of docs/runs.md: what was done to runs and files, and what happened.

`python -m tests.faults.table` runs every test that bears `@pytest.mark.fault(done, happens)`, the
slow ones too, and writes a row for each pair of texts. Tests that fail leave the table as it is.
"""

import ast
import collections
import datetime
import pathlib
import platform
import sys
from collections.abc import Iterator, Sequence

import pytest

TESTS = pathlib.Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "runs.md"
START, END = "<!-- faults: begin -->", "<!-- faults: end -->"


class Tried:
    """A pytest plugin that counts the cases of each fault.

    Attributes:
      cases: passed cases of each fault: (file, done, happens).
      inputs: drawn inputs of each fault that fuzzing shows.
      skipped: faults whose tests cannot run on this machine.
    """

    def __init__(self):
        self.cases: collections.Counter = collections.Counter()
        self.inputs: collections.Counter = collections.Counter()
        self.skipped: set[tuple[str, str, str]] = set()

    def pytest_runtest_logreport(self, report):
        properties = dict(report.user_properties)
        if "fault" not in properties:
            return
        fault = (report.nodeid.partition("::")[0], *properties["fault"])
        if report.skipped:
            self.skipped.add(fault)
        elif report.when == "call":
            self.cases[fault] += 1
            self.inputs[fault] += properties.get("inputs", 0)


def marked() -> Iterator[tuple[str, str, str]]:
    """File, done and happens of each mark in the tests, in the order of the files."""
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault":
                done, happens = (ast.literal_eval(argument) for argument in node.args)
                yield str(path.relative_to(TESTS.parent)), done, happens


def row(tried: Tried, fault: tuple[str, str, str]) -> str:
    """A row of the table."""
    count = f"{tried.inputs[fault]:,} inputs" if tried.inputs[fault] else str(tried.cases[fault])
    count = "not on this machine" if fault in tried.skipped and not tried.cases[fault] else count
    return f"| {fault[1]} | {fault[2]} | {count} |"


def table(tried: Tried) -> str:
    """The table, a part for each file of tests."""
    faults = list(dict.fromkeys(marked()))
    total, inputs = sum(tried.cases.values()), sum(tried.inputs.values())
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
    tried = Tried()
    files = sorted({str(TESTS.parent / fault[0]) for fault in marked()})
    options = ["-m", "fault", "-p", "no:cacheprovider", *arguments]
    if code := pytest.main([*files, *options], plugins=[tried]):
        return int(code)
    before, _, rest = PAGE.read_text().partition(START)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{START}\n{table(tried)}\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
