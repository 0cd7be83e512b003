"""Prompts to train on, of rows or of artefacts: the files that an evaluation reads, in the form of paraphrases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from textadv.data.artefacts.attempts import Artefact
from textadv.data.artefacts.harmbench import read_behaviours
from textadv.data.artefacts.joining import holds_rows, read_artefact, require_named
from textadv.data.characters import Surrogates
from textadv.data.chat import Chat
from textadv.data.paraphrases import Paraphrase, Paraphrases, read_paraphrases
from textadv.values.errors import DataError


def read_seeds(
    paths: Sequence[str | Path],
    key: str,
    columns: Mapping[str, str],
    behaviours: str | Path | None,
    chats: Sequence[Chat],
    surrogates: Surrogates = "error",
) -> Paraphrases:
    """The prompts of files, whatever their form: see `read_paraphrases` of rows, and else `read_artefact`.

    behaviours: the table that says what names of behaviours mean. chats: those that train. Attempts without a prompt,
    those of no request, and those with turns before the prompt, which a row of training has no place for, are left out
    and counted in notes. Raises DataError, naming `key`, as these do, and where a file names behaviours that nothing
    explains.
    """
    rows = [path for path in paths if holds_rows(path, f"{key}.file")]
    found = read_paraphrases(rows, key, columns, surrogates) if rows else Paraphrases(())
    told = {path: read_artefact(path, f"{key}.file", surrogates) for path in paths if path not in rows}
    names = None if behaviours is None else read_behaviours(behaviours, f"{key}.behaviours")
    require_named([*told.values()], {chat.id: (chat.conversation, chat.prompt) for chat in chats}, names, key)
    each = [found, *(_of_artefact(path, one, names or {}, key) for path, one in told.items())]
    every = Paraphrases(
        tuple(row for one in each for row in one.rows), tuple(note for one in each for note in one.notes)
    )
    if not every.rows:
        raise DataError(f"{key}: no prompt of {', '.join(map(str, paths))} can be trained on. {' '.join(every.notes)}")
    return every


def _of_artefact(path: str | Path, artefact: Artefact, names: Mapping[str, Sequence[str]], key: str) -> Paraphrases:
    rows, notes, nameless = [], [f"{key}: {note}." for note in artefact.notes], 0
    for number, one in enumerate(artefact.attempts):
        if not one.prompt or not one.prompt.strip() or one.history:
            continue
        forms = [form for form in (one.goal, *names.get(one.behaviour, ()), one.behaviour) if form.strip()]
        if forms:
            rows.append(Paraphrase(forms[0], one.prompt.strip(), f"prompt {number} of {path}", tuple(forms[1:])))
        else:
            nameless += 1
    count, turns = len(artefact.attempts), sum(bool(one.history) for one in artefact.attempts)
    left = count - len(rows) - nameless
    if nameless:
        notes.append(f"{key}: {nameless} of {count} prompts of {path} do not say what was asked for, and are left out.")
    if left:
        notes.append(
            f"{key}: {left} of {count} prompts of {path} are null or follow turns of their own ({turns} of them), and "
            "are left out."
        )
    return Paraphrases(tuple(rows), tuple(notes))
