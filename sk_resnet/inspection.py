"""Displays of what a network learned, and a diagnosis of how it fits."""

from sk_resnet._diagnosis import Diagnosis, Finding, diagnose
from sk_resnet._displays import (
    GradientFlowDisplay,
    NetworkDisplay,
    RegularizationPathDisplay,
    TrainingCurveDisplay,
    WeightDisplay,
)
from sk_resnet._probe import GradientFlow
from sk_resnet._summary import summary

__all__ = [
    "Diagnosis",
    "Finding",
    "GradientFlow",
    "GradientFlowDisplay",
    "NetworkDisplay",
    "RegularizationPathDisplay",
    "TrainingCurveDisplay",
    "WeightDisplay",
    "diagnose",
    "summary",
]
