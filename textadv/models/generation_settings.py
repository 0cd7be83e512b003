"""What a model's generation settings ask for beyond the end of an answer, which nothing here applies.

Answers are measured at the configured temperature and nothing else, so that attacks and models compare; whoever runs
the model with its own settings gets others.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from textadv.models.places import pretrained

AT_ANY_TEMPERATURE: Mapping[str, object] = {
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": 0,
    "bad_words_ids": None,
    "force_words_ids": None,
    "constraints": None,
    "sequence_bias": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "forced_eos_token_id": None,
    "exponential_decay_length_penalty": None,
    "guidance_scale": 1.0,
    "num_beams": 1,
    "penalty_alpha": 0.0,
    "dola_layers": None,
    "stop_strings": None,
    "token_healing": False,
    "watermarking_config": None,
}
"""Settings of transformers that change which tokens come, with the value that changes nothing."""
SAMPLING: Mapping[str, object] = {
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "top_h": 1.0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}
"""The same of settings that only change what is drawn."""
LONGEST_SHOWN = 40


def unapplied(model: nn.Module, temperature: float) -> dict[str, object]:
    """The model's generation settings that would change its answers at this temperature, by name.

    Its own temperature and numbers of tokens are left out: the configuration sets these.
    """
    settings = pretrained(model).generation_config
    if settings is None:
        return {}
    told, kinds = settings.to_dict(), {**AT_ANY_TEMPERATURE, **(SAMPLING if temperature > 0 else {})}
    set_to = {name: told.get(name) for name in kinds}
    return {name: value for name, value in set_to.items() if value not in (None, [], {}, kinds[name])}


def unapplied_notes(name: str, model: nn.Module, temperature: float) -> tuple[str, ...]:
    """A sentence that names what `unapplied` finds in the model of this name; none where it finds nothing."""
    found = unapplied(model, temperature)
    if not found:
        return ()
    named = ", ".join(f"{setting}: {_shown(value)}" for setting, value in found.items())
    return (
        f"{name}: its generation_config sets {named}, which nothing here applies: answers are measured at "
        "the configured temperature alone. Whoever runs the model with these settings, as transformers' generate and "
        "most servers do, gets other answers than were measured. Serve it without them, or take the results with care.",
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."
