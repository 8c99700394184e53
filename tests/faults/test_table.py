"""The table of faults in docs/runs.md."""

from tests.faults import table


def test_page_has_a_row_for_every_fault_that_a_test_shows():
    page = table.PAGE.read_text()
    written = page[page.index(table.START) : page.index(table.END)]
    missing = [fault for fault in table.marked() if f"| {fault[1]} | {fault[2]} |" not in written]
    assert not missing, "run python -m tests.faults.table"
