"""Metrics of segmentation from pixel counts; no metric counts ignored pixels (255)."""

from segjax.metrics.boundary import Boundaries
from segjax.metrics.by_object import StratifiedIoU
from segjax.metrics.calibration import (
    add_counts,
    calibration_counts,
    summarize_calibration,
    summarize_risk,
    uncertainty_counts,
)
from segjax.metrics.confusion import (
    ImageConfusions,
    class_average_accuracy,
    confusion_matrix,
    frequency_weighted_iou,
    global_accuracy,
    mean_iou,
    mean_iou_by_image,
    mean_of_finite,
    ratio,
    summarize,
)
from segjax.metrics.multilabel import (
    LabelConfusions,
    best_thresholds,
    label_confusion,
    mean_label_iou,
    summarize_labels,
    threshold_counts,
)
from segjax.metrics.paired import PairedTest, paired_test
from segjax.metrics.protocols import (
    DEFAULT_PROTOCOL,
    PROTOCOLS,
    Protocol,
    compare_protocols,
    find_protocol,
)

__all__ = [
    "DEFAULT_PROTOCOL",
    "PROTOCOLS",
    "Boundaries",
    "ImageConfusions",
    "LabelConfusions",
    "PairedTest",
    "Protocol",
    "StratifiedIoU",
    "add_counts",
    "best_thresholds",
    "calibration_counts",
    "class_average_accuracy",
    "compare_protocols",
    "confusion_matrix",
    "find_protocol",
    "frequency_weighted_iou",
    "global_accuracy",
    "label_confusion",
    "mean_iou",
    "mean_iou_by_image",
    "mean_label_iou",
    "mean_of_finite",
    "paired_test",
    "ratio",
    "summarize",
    "summarize_calibration",
    "summarize_labels",
    "summarize_risk",
    "threshold_counts",
    "uncertainty_counts",
]
