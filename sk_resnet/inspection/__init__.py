"""Displays of what a network learned, and a diagnosis of how it fits."""

from sk_resnet.inspection._attribution_display import AttributionDisplay
from sk_resnet.inspection._curves import (
    GradientFlowDisplay,
    RegularizationPathDisplay,
    TrainingCurveDisplay,
)
from sk_resnet.inspection._diagnosis import Diagnosis, Finding, diagnose
from sk_resnet.inspection._displays import NetworkDisplay, WeightDisplay
from sk_resnet.inspection._probe import GradientFlow
from sk_resnet.inspection._summary import summary

__all__ = [
    "AttributionDisplay",
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
