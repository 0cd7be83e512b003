"""One launch of two processes for all tests of this folder that were asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import worker
from tests.processes import name_of, worked_in_two


@pytest.fixture(scope="session")
def left_by_two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes left what the `at_two` of each test module in this session found."""
    folder = tmp_path_factory.mktemp("two")
    modules = {item.module for item in request.session.items if isinstance(item, pytest.Function)}
    works = {name_of(module.at_two) for module in modules if hasattr(module, "at_two")}
    worked_in_two(worker.each, folder, *sorted(works))
    return folder


@pytest.fixture(scope="module")
def left(request: pytest.FixtureRequest, left_by_two: Path) -> Path:
    """What the `at_two` of this module left."""
    return left_by_two / str(request.module.at_two.__module__)
