"""Which weights of a run are kept, and with which of them it ends."""

from __future__ import annotations

from textadv.progress import Progress

RANKING = {"robust_best": ("robust", "clean"), "clean_best": ("clean", "robust"), "last": ("step",)}
"""The kinds of weights that are kept, and the measures that rank them, first to last."""


def _rank(entry: dict[str, float], order: tuple[str, ...]) -> tuple[float, ...]:
    return tuple(entry[key] for key in order if key in entry)


def improved(best: dict[str, dict[str, float]], entry: dict[str, float], collapsed: bool) -> list[str]:
    """The kinds for which `entry`, what was measured just now, is better than the best so far.

    collapsed: the model answers no better than one constant class, so that its weights are only kept as the last.
    """
    return [
        kind
        for kind, order in RANKING.items()
        if order[0] in entry
        and not (collapsed and kind != "last")
        and (kind not in best or _rank(entry, order) > _rank(best[kind], order))
    ]


def selected(progress: Progress, wanted: str, *, measured: bool, hardening: bool) -> str:
    """The kind that the run ends with; where it is not the wanted one a note in `progress` says why.

    measured: whether held-out rows were scored at all. hardening: whether rows were attacked.
    """
    if not measured:
        return "last"
    if progress.doubt is not None:
        progress.notes.append(f"on the rows that choose the checkpoint: {progress.doubt}")
    if wanted == "robust_best" and not any("robust" in entry for entry in progress.history):
        progress.notes.append("robust accuracy was not measured: the checkpoint was chosen by clean accuracy")
        wanted = "clean_best"
    if wanted in progress.best:
        return wanted
    state, remedy = "NOT HARDENED", "Lower the radius, or add warm-up or a ramp."
    if not hardening:
        state, remedy = "NOT TRAINED", "Train for more steps, or change training.learning_rate."
    if progress.doubt is not None:
        remedy = "See what the note says of the rows that choose it."
    progress.notes.append(
        f"{state}: at every evaluation the model answered no better than one constant class, so no checkpoint was "
        f"eligible; the last one is kept. {remedy}"
    )
    return "last"
