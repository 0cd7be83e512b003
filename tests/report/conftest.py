"""Made-up results that the tests of the report share."""

from __future__ import annotations

import pytest

from tests.report.made_up import MODELS, made, trained
from textadv.report import Results


@pytest.fixture
def results() -> Results:
    """See `MODELS`; two of them were trained."""
    return made(
        *MODELS,
        trainings=(trained("plain", 1000, 10.0), trained("hardened", 2500, 31.0, overfitting=0.05)),
        warnings=("steps * step_size cannot reach the radius",),
    )
