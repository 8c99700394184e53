"""What of the doctor's findings a run prints at its start."""

from collections.abc import Collection, Sequence

from rich.text import Text

from segjax.console import Console
from segjax.data.doctor.findings import WARNING, Finding
from segjax.training.progress import print_line


def print_harm(findings: Sequence[Finding], console: Console, known: Collection[str] = ()) -> None:
    """Prints what would harm a run in one block: a line for each finding, and its remedy.

    Args:
      findings: of which warnings are printed, and nothing without any.
      console: to print to.
      known: titles of findings that the user has seen, which are counted only.
    """
    harm = [finding for finding in findings if finding.severity == WARNING]
    new = [finding for finding in harm if finding.title not in known]
    if not new:
        if harm:
            print_line(console, f"{len(harm)} findings that may harm are those of the start")
        return
    heading = f"this would harm the run ({len(new)} finding{'s' * (len(new) > 1)}, more with --mode"
    print_line(console, Text(f"{heading}=doctor):", style="yellow"))
    for finding in new:
        print_line(console, f"  {finding.title}")
        print_line(console, Text(f"    -> {finding.remedy}", style="green"))
