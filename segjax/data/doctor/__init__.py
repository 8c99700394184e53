"""The data doctor: finds what is wrong with a data set before anything is trained on it."""

from segjax.data.doctor.diagnose import diagnose, diagnose_config
from segjax.data.doctor.findings import (
    ERROR,
    INFO,
    SEVERITIES,
    WARNING,
    Diagnosis,
    Finding,
    SplitNumbers,
    paste_lines,
)

__all__ = [
    "ERROR",
    "INFO",
    "SEVERITIES",
    "WARNING",
    "Diagnosis",
    "Finding",
    "SplitNumbers",
    "diagnose",
    "diagnose_config",
    "paste_lines",
]
