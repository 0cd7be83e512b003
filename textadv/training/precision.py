"""Which number formats the processor computes in, and which it can only imitate."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from textadv.models import bare

# Any of these computes matrix products in bfloat16: of x86 (AVX512-BF16, AMX, AVX10.2), then of ARM.
BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "avx10_2", "bf16", "sve_bf16")


def _capabilities() -> Mapping[str, object]:
    """What the CPU knows, by name; empty where torch is too old to tell."""
    try:
        return torch.cpu.get_capabilities()
    except AttributeError:
        return {}


def emulation_warning(key: str, value: str, device: torch.device) -> str | None:
    """A sentence where a setting asks for bfloat16 and the CPU has no instructions for it, else None.

    key, value: the setting, for example training.precision and bf16. device: where the run computes.
    """
    known = _capabilities()
    if value not in ("bf16", "bfloat16") or device.type != "cpu" or not known:
        return None
    if any(known.get(name) for name in BF16_INSTRUCTIONS):
        return None
    name, instead = known.get("cpu_name", "unknown"), "no" if value == "bf16" else "float32"
    return (
        f"{key}: {value} is imitated on this CPU ({name}), which has no instructions for it and can be ten times "
        f"slower than in float32. Set {key}: {instead}."
    )


def without_autocast(model: nn.Module) -> None:
    """Takes accelerate's autocast off a model.

    `Accelerator.unwrap_model` would take off the decorators of the model's own forward as well.
    """
    inner = bare(model)
    own = vars(inner)
    original = own.pop("_original_forward", None)
    if original is not None:
        own.pop("forward")
        if inner.forward != original:
            own["forward"] = original
