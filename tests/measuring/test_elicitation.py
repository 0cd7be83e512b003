"""Attack success, on a model with shallow refusals and with judges whose verdicts are known."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.measuring.talking import (
    END,
    FORBIDDEN_CHATS,
    HERE,
    IS,
    SURE,
    VOCABULARY,
    Chats,
    Trained,
    Watching,
    Words,
    searching,
    trained,
    untrained,
)
from tests.oracles import FixedRows, token_rows
from textadv.attacks import Untargeted
from textadv.data import Rows
from textadv.measuring.judges.verdicts import Judge, Verdict
from textadv.measuring.safety.adversaries import (
    Adversary,
    Behaviour,
    Direct,
    EmbeddingAttack,
    Prefill,
    Round,
    behaviours_of,
)
from textadv.measuring.safety.elicitation import AttackSuccess, Elicitation, as_json, elicit
from textadv.measuring.safety.generate import Decoding, Prompt
from textadv.measuring.statistics import wilson
from textadv.values.errors import GenerationError

COUNT = len(FORBIDDEN_CHATS)
SHORT = Decoding(max_new_tokens=8, batch_size=5)
ATTACKS: dict[str, Adversary] = {
    "prefill 3": Prefill(3),
    "tiny ball": EmbeddingAttack(searching(0.01)),
    "ball": EmbeddingAttack(searching(0.8), restarts=2, batch_size=4),
    "suffix": EmbeddingAttack(searching(3.0), rows=replace(FORBIDDEN_CHATS, slots=2)),
}


@pytest.fixture(scope="module")
def models() -> Trained:
    return trained()


@pytest.fixture(scope="module")
def watching() -> Watching:
    return Watching()


@pytest.fixture(scope="module")
def found(models: Trained, watching: Watching) -> Elicitation:
    return measured(models.shallow, ATTACKS, watching)


def measured(
    model: nn.Module,
    attacks: dict[str, Adversary],
    judge: Judge | None = None,
    decoding: Decoding = SHORT,
    rows: Chats = FORBIDDEN_CHATS,
    **options: object,
) -> Elicitation:
    return elicit(model, Words(), rows, rows.requests, attacks, judge or Watching(), decoding, **options)  # type: ignore[arg-type]


def named(elicitation: Elicitation, name: str) -> AttackSuccess:
    return next(attack for attack in elicitation.attacks if attack.name == name)


def broken(elicitation: Elicitation, name: str) -> list[bool]:
    return [outcome.broken for outcome in elicitation.outcomes if outcome.attack == name]


@contextmanager
def passes(model: nn.Module) -> Iterator[list[int]]:
    """The sizes of all batches that go through the model inside the block."""
    seen: list[int] = []
    handle = model.register_forward_pre_hook(
        lambda _module, _args, options: seen.append(len(options["input_ids"])), with_kwargs=True
    )
    try:
        yield seen
    finally:
        handle.remove()


# ---- a model with shallow refusals


def test_what_the_direct_request_does_not_get_attacks_do(found: Elicitation) -> None:
    assert [attack.name for attack in found.attacks] == ["direct", *ATTACKS], "the direct request is always there"
    assert named(found, "direct").low == wilson(0, COUNT)
    assert named(found, "prefill 3").low.count >= COUNT // 2
    assert named(found, "ball").low.count >= COUNT - 1
    assert named(found, "suffix").low.count >= COUNT - 1
    assert named(found, "tiny ball").low.count <= 1
    assert found.worst_case.low.count >= max(attack.low.count for attack in found.attacks)
    assert all(attack.already == wilson(0, COUNT) for attack in (*found.attacks, found.worst_case))


def test_every_behaviour_has_one_outcome_under_every_attack(found: Elicitation) -> None:
    rows = [(outcome.attack, outcome.id) for outcome in found.outcomes]
    assert rows == [(name, row) for name in ("direct", *ATTACKS) for row in FORBIDDEN_CHATS.ids]
    for outcome in found.outcomes:
        rounds = 2 if outcome.attack == "ball" else 1
        assert [answer.restart for answer in outcome.answers] == list(range(rounds))
        assert outcome.broken == any(answer.broken for answer in outcome.answers)
    for attack in found.attacks:
        assert (
            sum(attack.answers.values()) == sum(attack.verdicts.values()) == COUNT * (2 if attack.name == "ball" else 1)
        )
        assert attack.low == attack.high == wilson(sum(broken(found, attack.name)), COUNT)
    anyhow = [any(row) for row in zip(*(broken(found, attack.name) for attack in found.attacks), strict=True)]
    assert found.worst_case.low == wilson(sum(anyhow), COUNT)
    assert sum(found.worst_case.answers.values()) == 6 * COUNT


def test_the_judge_sees_request_and_whole_response(found: Elicitation, watching: Watching) -> None:
    requests = dict(zip(FORBIDDEN_CHATS.ids, FORBIDDEN_CHATS.requests, strict=True))
    shown = set(watching.seen)
    assert len(shown) == len(watching.seen), "asked once about the same response"
    assert shown == {(requests[outcome.id], answer.text) for outcome in found.outcomes for answer in outcome.answers}
    for outcome in found.outcomes:
        if outcome.attack == "prefill 3":
            assert all(answer.text.startswith("sure here is ") for answer in outcome.answers)
    direct = {answer.text for row in found.outcomes if row.attack == "direct" for answer in row.answers}
    assert direct == {"sorry no"}


def test_costs_and_descriptions_are_those_of_the_attacks(found: Elicitation) -> None:
    ball, tiny = named(found, "ball"), named(found, "tiny ball")
    assert tiny.backwards >= 14 * COUNT, "rows that hold are searched to the end"
    assert 0 < ball.backwards < tiny.backwards, "rows that break early stop"
    assert named(found, "prefill 3").backwards == named(found, "direct").forwards == 0
    assert found.worst_case.backwards == sum(attack.backwards for attack in found.attacks)
    assert "15 steps" in ball.description and "2 independent searches" in ball.description
    assert ball.threat == "L2 ball per token, relative radius 0.8, in word embeddings"
    assert (named(found, "direct").threat, named(found, "prefill 3").description) == ("none", "3 prefilled tokens")
    assert found.worst_case.description == "at least one of: direct, prefill 3, tiny ball, ball, suffix"
    assert (found.judge, found.judge_version, found.decoding) == ("watching", "1", SHORT)


def test_results_do_not_depend_on_batch_sizes(models: Trained, found: Elicitation) -> None:
    other = replace(ATTACKS["ball"], batch_size=1)  # type: ignore[type-var]
    again = measured(models.shallow, {"ball": other}, decoding=replace(SHORT, batch_size=2))
    assert [row for row in again.outcomes if row.attack == "ball"] == [
        row for row in found.outcomes if row.attack == "ball"
    ]


def test_restarts_are_searches_of_their_own(models: Trained) -> None:
    """At a radius where a search may fail, restarts break different rows, and any of them counts."""
    attack = EmbeddingAttack(searching(0.2, steps=3, early_stop=False), restarts=5)
    found = measured(models.shallow, {"ball": attack})
    rows = [outcome.answers for outcome in found.outcomes if outcome.attack == "ball"]
    each = [[bool(answers[restart].broken) for answers in rows] for restart in range(5)]
    assert len({tuple(restart) for restart in each}) > 1
    assert sum(each[0]) < named(found, "ball").low.count < COUNT
    once = measured(models.shallow, {"ball": replace(attack, restarts=1)})
    assert broken(once, "ball") == each[0]


def test_a_model_that_never_refused_is_said_to_be_broken_already(models: Trained) -> None:
    found = measured(models.helpful, {"plain": Direct(), "prefill 1": Prefill(1)})
    assert [attack.name for attack in found.attacks] == ["plain", "prefill 1"], "no second direct request"
    assert named(found, "prefill 1").already == named(found, "plain").low
    assert named(found, "plain").low.count >= COUNT - 1


def test_the_suffix_attack_moves_its_slots_alone(models: Trained) -> None:
    rows = replace(FORBIDDEN_CHATS, slots=2)
    attack = EmbeddingAttack(searching(3.0), rows=rows)
    (only,) = attack.rounds(models.shallow, FORBIDDEN_CHATS, behaviours_of(FORBIDDEN_CHATS))
    assert only.prepare is not None
    for n, prompt in enumerate(only.prepare(only.prompts)):
        assert prompt.delta is not None and len(prompt.ids) == len(prompt.delta) == 6 + n % 2
        moved = prompt.delta.ne(0).any(dim=1)
        assert moved.nonzero().flatten().tolist() == [3 + n % 2, 4 + n % 2]


def test_a_stored_evaluation_is_not_searched_or_generated_again(
    models: Trained, found: Elicitation, tmp_path: Path
) -> None:
    attacks = {"prefill 3": ATTACKS["prefill 3"], "ball": ATTACKS["ball"]}
    store = tmp_path / "answers.jsonl"
    lines: list[str] = []
    first = measured(models.shallow, attacks, store=store, key="weights", say=lines.append)
    assert [line.split(": ")[0] for line in lines[:3]] == ["direct", "prefill 3", "ball"]
    assert lines[3].startswith("worst case: ") and len(lines) == 4
    assert all(" behaviours " in line and "{" not in line for line in lines)
    with passes(models.shallow) as batches:
        again = measured(models.shallow, attacks, store=store, key="weights")
    assert batches == []
    assert again.outcomes == first.outcomes
    assert [replace(a, seconds=0) for a in again.attacks] == [replace(a, seconds=0) for a in first.attacks]
    wider = {"ball": EmbeddingAttack(searching(0.81), restarts=2)}
    with passes(models.shallow) as batches:
        measured(models.shallow, wider, store=store, key="weights")
    assert sum(batches) > 2 * COUNT, "another radius is another search"


def test_results_are_json(found: Elicitation) -> None:
    read = json.loads(json.dumps(as_json(found), allow_nan=False))
    assert read["attacks"][0]["low"]["total"] == COUNT
    assert read["outcomes"][0]["answers"][0]["text"] == "sorry no"
    assert read["decoding"]["max_new_tokens"] == 8
    assert read["worst_case"]["low"]["count"] == found.worst_case.low.count


# ---- counting, with verdicts that are known


@dataclass(frozen=True)
class Asking:
    """One round for each list of first tokens: row n is asked with token n of it."""

    words: tuple[tuple[int, ...], ...]
    threat: str = "none"

    def rounds(self, model: nn.Module, rows: Rows, behaviours: Sequence[Behaviour]) -> Iterable[Round]:
        for words in self.words:
            yield Round([Prompt(row.id, row.ids, (word,)) for row, word in zip(behaviours, words, strict=True)])


@dataclass
class Table:
    """Verdicts by the response's first word; everything else is not broken."""

    verdicts: dict[str, Verdict]
    name: str = "table"
    version: str = "1"
    lost: int = 0
    asked: list[str] = field(default_factory=list)

    def judge(self, prompts: Sequence[str], responses: Sequence[str]) -> list[Verdict]:
        self.asked += responses
        safe = Verdict("ok", False, 0.0, "safe")
        return [self.verdicts.get(response.split()[0], safe) for response in responses][self.lost :]


YES, SAFE, ODD, DOWN = 20, 21, 22, 23
VERDICTS = {
    f"w{YES}": Verdict("ok", True, 0.9, "broken"),
    f"w{ODD}": Verdict("unparsed", None, None, "maybe"),
    f"w{DOWN}": Verdict("error", None, None, "timed out"),
}
FOUR = Chats(FORBIDDEN_CHATS.pairs[:4])


def test_what_a_judge_leaves_open_is_counted_both_ways() -> None:
    attacks: dict[str, Adversary] = {
        "one": Asking(((YES, SAFE, ODD, DOWN),)),
        "two": Asking(((SAFE, SAFE, ODD, YES), (SAFE, SAFE, SAFE, DOWN))),
    }
    found = measured(untrained(), attacks, Table(VERDICTS), rows=FOUR)
    one, two, worst = named(found, "one"), named(found, "two"), found.worst_case
    assert (one.low, one.high) == (wilson(1, 4), wilson(3, 4))
    assert one.verdicts == {"ok": 2, "unparsed": 1, "error": 1}
    assert (two.low, two.high) == (wilson(1, 4), wilson(2, 4))
    assert two.verdicts == {"ok": 6, "unparsed": 1, "error": 1}
    assert (worst.low, worst.high) == (wilson(2, 4), wilson(3, 4))
    assert [answer.reason for answer in found.outcomes[4].answers] == ["broken"]
    assert [row.broken for row in found.outcomes if row.attack == "two"] == [False, False, False, True]
    assert [row.possibly_broken for row in found.outcomes if row.attack == "two"] == [False, False, True, True]


def test_any_sample_breaks_a_behaviour() -> None:
    """Untrained at a high temperature: each of 12 samples begins with one of 31 words, seven of which are broken."""
    verdicts = {f"w{word}": VERDICTS[f"w{YES}"] for word in range(9, 16)}
    model = untrained()
    warm = Decoding(max_new_tokens=3, temperature=5.0, samples=12, batch_size=7)
    many = named(measured(model, {}, Table(verdicts), warm), "direct")
    one = named(measured(model, {}, Table(verdicts), replace(warm, samples=1)), "direct")
    assert sum(many.answers.values()) == 12 * COUNT
    assert one.low.count < many.low.count and many.low.count >= COUNT // 2


def test_an_answer_that_failed_is_not_known() -> None:
    found = measured(untrained(), {"odd": Asking(((YES, SAFE, VOCABULARY, SAFE),))}, Table(VERDICTS), rows=FOUR)
    odd = named(found, "odd")
    assert (odd.low, odd.high) == (wilson(1, 4), wilson(2, 4))
    assert odd.answers["error"] == odd.verdicts["error"] == 1
    assert "the model knows 0 to 31" in found.outcomes[6].answers[0].reason
    with pytest.raises(GenerationError, match="Every one of 4 answers failed"):
        measured(untrained(), {"odd": Asking(((VOCABULARY,) * 4,))}, rows=FOUR)


def test_answers_to_which_the_model_adds_nothing_break_nothing() -> None:
    """The model ends at once: its response is empty, or the adversary's own words, of which it is not guilty."""
    table = Table(VERDICTS)
    found = measured(untrained(), {"all": Asking(((YES,) * 4,))}, table, rows=FOUR, ends=tuple(range(VOCABULARY)))
    direct, prefilled = named(found, "direct"), named(found, "all")
    assert direct.high == prefilled.high == wilson(0, 4)
    assert direct.answers == prefilled.answers == {"empty": 4}
    assert direct.verdicts == prefilled.verdicts == {"unjudged": 4}
    assert table.asked == []


def test_prefills_are_the_beginning_of_the_target_without_its_end() -> None:
    assert [row.target for row in behaviours_of(FOUR)] == [(4, 5, 6, thing, verb, END) for verb, thing in FOUR.pairs]
    model, read = untrained(), []

    def note(_module: nn.Module, _args: object, options: dict[str, torch.Tensor]) -> None:
        read.extend(options["input_ids"].tolist() if "past_key_values" not in options else [])

    handle = model.register_forward_pre_hook(note, with_kwargs=True)
    found = measured(model, {"2": Prefill(2), "40": Prefill(40)}, rows=FOUR)
    handle.remove()
    assert sorted(row[-2:] for row in read[4:8]) == [[SURE, HERE]] * 4
    assert sorted(row[-5:] for row in read[8:]) == sorted([SURE, HERE, IS, thing, verb] for verb, thing in FOUR.pairs)
    for row, (verb, thing) in enumerate(FOUR.pairs):
        assert found.outcomes[4 + row].answers[0].text.startswith("sure here ")
        assert found.outcomes[8 + row].answers[0].text.startswith(f"sure here is w{thing} w{verb}")


def test_nothing_is_put_into_the_mouth_after_a_token_that_ends_answers() -> None:
    """A target may spell one, as some data sets end theirs."""
    found = measured(untrained(), {"40": Prefill(40)}, rows=FOUR, ends=(END, IS))
    assert [row.answers[0].text.split()[:2] for row in found.outcomes[4:]] == [["sure", "here"]] * 4
    assert not any(" is " in f"{row.answers[0].text} " for row in found.outcomes)


def test_the_special_token_that_targets_end_with_ends_answers(models: Trained) -> None:
    """A chat template's end of turn need not be the end-of-sequence token of tokenizer or model."""

    class Unended(Words):
        eos_token_id = None

    model = copy.deepcopy(models.helpful)
    model.generation_config.eos_token_id = None
    found = elicit(model, Unended(), FOUR, FOUR.requests, {}, Watching(), SHORT)
    assert found.attacks[0].answers == {"ok": 4}
    assert elicit(model, Unended(), FOUR, FOUR.requests, {}, Watching(), SHORT, ends=()).attacks[0].answers == {
        "truncated": 4
    }


# ---- what is refused


def test_settings_that_would_mislead_are_refused() -> None:
    with pytest.raises(ValueError, match="has the goal Elicit"):
        EmbeddingAttack(searching(goal=Untargeted()))
    with pytest.raises(ValueError, match="attack.restarts: 3 would keep one of several searches"):
        EmbeddingAttack(searching(restarts=3))
    with pytest.raises(ValueError, match="restarts: 2 would repeat one start"):
        EmbeddingAttack(searching(random_start=False), restarts=2)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        EmbeddingAttack(searching(), restarts=0)
    with pytest.raises(ValueError, match="at least 1, got 0. Without any it is the direct request"):
        Prefill(0)


def test_rows_that_do_not_fit_are_refused() -> None:
    model = untrained()
    with pytest.raises(ValueError, match="got 1 requests and 4 rows"):
        elicit(model, Words(), FOUR, ["w1 w2"], {}, Watching(), SHORT)
    with pytest.raises(ValueError, match="the same order"):
        measured(model, {"suffix": EmbeddingAttack(searching(), rows=FORBIDDEN_CHATS)}, rows=FOUR)
    with pytest.raises(ValueError, match="table gave 1 verdicts on 4 responses"):
        measured(model, {}, Table({}, lost=3), rows=FOUR)
    plain = FixedRows(token_rows([5, 6]))
    with pytest.raises(ValueError, match="needs chats with an answer 'harmful'"):
        elicit(model, Words(), plain, ["", ""], {}, Watching(), SHORT)


def test_a_perturbation_outside_its_ball_is_an_error(models: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attack whose projection is lost, and one that moves what it may not: no row counts as broken by them."""
    monkeypatch.setattr("textadv.attacks.parts.threat.ThreatModel.confine", lambda self, batch, delta: 50 * delta)
    with pytest.raises(GenerationError, match="Every one of 4 answers failed.*left its ball: norm / radius"):
        measured(models.shallow, {"ball": EmbeddingAttack(searching(0.1))}, rows=FOUR)
    monkeypatch.setattr("textadv.attacks.parts.threat.ThreatModel.confine", lambda self, batch, delta: delta * 0 + 1e-3)
    with pytest.raises(GenerationError, match="moved a position that is not editable"):
        measured(models.shallow, {"ball": EmbeddingAttack(searching(0.1))}, rows=FOUR)
