from __future__ import annotations

import pytest

from tests.report.made_up import evaluated, made, trained
from textadv.report import Results


@pytest.fixture
def results() -> Results:
    """Under attack 14 of 20 rows instead of 5 (9 won, none lost), clean 17 instead of 18 (1 lost)."""
    return made(
        evaluated("before", 10, 0, curve=(4, 0)),
        evaluated("plain", 18, 5, curve=(12, 5)),
        evaluated("hardened", 17, 14, curve=(15, 14)),
        trainings=(trained("plain", 1000, 10.0), trained("hardened", 2500, 31.0, overfitting=0.05)),
        warnings=("steps * step_size cannot reach the radius",),
    )
