"""The sections that say where the chats of a run come from, and the paraphrases of its harmful prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field

from textadv.config.types import Count, Section, Text, Texts

if TYPE_CHECKING:
    from textadv.data import ChatSplits
    from textadv.data.characters import Surrogates
    from textadv.data.paraphrases import Joined
    from textadv.values.batch import Role

ChatColumn = Literal["prompt", "target", "safe", "input", "response", "messages", "system"]


class StreamConfig(Section):
    """Where one stream of chats comes from. Selection uses validation rows only, reports use test rows only."""

    name: Text = Field(
        "files", description="files for local csv, tsv, json, jsonl or parquet files; or a Hub id or folder."
    )
    config: Text | None = Field(None, description="Configuration of a Hub data set.")
    train: Texts | None = Field(None, description="File path(s), or the training split on the Hub.")
    validation: Texts | None = Field(None, description="File path(s) or split; null: a share of train is held out.")
    test: Texts | None = Field(None, description="File path(s) or split; null: data.*.test_fraction of train.")
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1, description="Share of the training rows held out when there is no validation part."
    )
    test_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Share of the training rows held out when there is no test part."
    )
    columns: dict[ChatColumn, Text] = Field({}, description="Column of each role, where its name is another.")
    validation_columns: dict[ChatColumn, Text] | None = Field(
        None, description="Those of the validation part, where they differ; null: data.*.columns."
    )
    test_columns: dict[ChatColumn, Text] | None = Field(
        None, description="Those of the test part, where they differ; null: data.*.columns."
    )
    train_rows: Count | None = Field(None, description="Seeded subset of the training rows; null: all.")
    validation_rows: Count | None = Field(None, description="Seeded subset of the validation rows; null: all.")
    test_rows: Count | None = Field(None, description="Seeded subset of the test rows; null: all.")
    safe_responses: list[Text] = Field(
        [], description="Safe answers, in turn, in place of a column of them; adversarial stream only."
    )

    def make(self, role: Role, seed: int, surrogates: Surrogates = "error") -> ChatSplits:
        """The stream, mapped, checked and split."""
        from textadv.data import load_chats

        return load_chats(role, seed=seed, surrogates=surrogates, **self.model_dump(exclude={"paraphrases"}))


class ParaphrasesConfig(Section):
    """Further prompts of the behaviours that are trained on, by any generator (DAT, arXiv:2602.15238)."""

    file: Texts = Field(description="File path(s): csv, tsv, json, jsonl or parquet, a row for each paraphrase.")
    columns: dict[Literal["original", "paraphrase", "suffix"], Text] = Field(
        {}, description="Column of each, where its name is another than original_prompt and inpainted_prompt."
    )
    per_behaviour: Count | None = Field(16, description="Most paraphrases of a behaviour that are kept; null: all.")
    keep: Literal["likely", "seeded", "first"] = Field(
        "likely",
        description="Which: those after which the model to be trained finds the target most likely, a draw, or the "
        "first of the file.",
    )

    def join(self, splits: ChatSplits, surrogates: Surrogates = "error") -> Joined:
        """What of the file is of the training behaviours, all of it. Raises DataError."""
        from textadv.data.paraphrases import join_paraphrases, read_paraphrases

        paths = [self.file] if isinstance(self.file, str) else self.file
        columns = {str(role): name for role, name in self.columns.items()}
        read = read_paraphrases(paths, PARAPHRASES, columns, surrogates)
        return join_paraphrases(read, splits, PARAPHRASES)


PARAPHRASES = "data.adversarial.paraphrases"


def of_a_file(data: object) -> object:
    """Path(s) alone are the section with no other key."""
    return {"file": data} if isinstance(data, str | list) else data


class AdversarialStreamConfig(StreamConfig):
    """The adversarial stream, and further prompts of its behaviours."""

    paraphrases: Annotated[ParaphrasesConfig | None, BeforeValidator(of_a_file)] = Field(
        None,
        description="Further prompts of the training behaviours, which still count once in a pass; null: none.",
    )
