"""Metrics of segmentation from pixel counts; ignored pixels (255) take no part in any of them."""

from segjax.metrics.boundary import Boundaries
from segjax.metrics.by_object import Strata
from segjax.metrics.confusion import (
    PROTOCOL,
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

__all__ = [
    "PROTOCOL",
    "Boundaries",
    "ImageConfusions",
    "Strata",
    "class_average_accuracy",
    "confusion_matrix",
    "frequency_weighted_iou",
    "global_accuracy",
    "mean_iou",
    "mean_iou_by_image",
    "mean_of_finite",
    "ratio",
    "summarize",
]
