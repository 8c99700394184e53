"""The data doctor: what is wrong with a data set, before anything is trained on it."""

from segjax.data.checks import quick_check
from segjax.data.doctor.diagnose import diagnose, diagnose_config
from segjax.data.doctor.findings import (
    HARMS,
    SEVERITIES,
    STOPS,
    WORTH,
    Diagnosis,
    Finding,
    SplitNumbers,
    paste_lines,
)

__all__ = [
    "HARMS",
    "SEVERITIES",
    "STOPS",
    "WORTH",
    "Diagnosis",
    "Finding",
    "SplitNumbers",
    "diagnose",
    "diagnose_config",
    "paste_lines",
    "quick_check",
]
