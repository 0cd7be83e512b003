"""Answers to prompts: one for each, in order, whatever the batches; kept as they come, and never made twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import nn

from tests.measuring.talking import ASSISTANT, END, PAD, SORRY, START, VOCABULARY, Words, untrained
from tests.processes import worked_in_two
from textadv.measuring.ledger import keep, repaired
from textadv.measuring.safety import kept_answers
from textadv.measuring.safety.generate import Decoding, Prompt, answers, content_key
from textadv.measuring.safety.kept_answers import Answer, files_of, fits
from textadv.models.decoding import generate_tokens
from textadv.values.errors import GenerationError, WriteError
from textadv.values.spaces import Embeddings, Hidden

NEW = 8
GREEDY = Decoding(max_new_tokens=NEW, batch_size=3)
SAMPLED = replace(GREEDY, temperature=1.5, samples=2, seed=3)


def model() -> nn.Module:
    return untrained(torch.float64)


def prompts(count: int = 8) -> list[Prompt]:
    """Prompts of 2 to 9 tokens, in no order of length; odd ones have two tokens of an answer already."""
    generator = torch.Generator().manual_seed(2)
    found = []
    for n in range(count):
        words = torch.randint(9, VOCABULARY, (1 + (5 * n) % 8,), generator=generator).tolist()
        found.append(Prompt(100 - n, (START, *words), (SORRY, 10 + n) if n % 2 else ()))
    return found


def answered(
    rows: Sequence[Prompt], decoding: Decoding = GREEDY, network: nn.Module | None = None, **options: object
) -> list[Answer]:
    return answers(network or model(), Words(), rows, decoding, **options)  # type: ignore[arg-type]


@contextmanager
def counted(network: nn.Module) -> Iterator[list[int]]:
    """The rows of every prompt that the model reads inside the block, batch by batch."""
    seen: list[int] = []

    def note(_module: nn.Module, _args: object, options: dict[str, torch.Tensor]) -> None:
        if "past_key_values" not in options:
            seen.append(len(options["input_ids"]))

    handle = network.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def alone(row: Prompt) -> list[int]:
    (found,) = generate_tokens(model(), [[*row.ids, *row.prefill]], max_new_tokens=NEW, end_ids=(END,), pad_id=PAD)
    return found


def test_every_prompt_has_its_own_answer_in_order() -> None:
    rows = prompts()
    found = answered(rows, attack="prefill")
    for row, answer in zip(rows, found, strict=True):
        tokens = alone(row)
        said = tokens[:-1] if tokens[-1] == END else tokens
        text = Words().decode([*row.prefill, *said], skip_special_tokens=True)
        assert (answer.id, answer.sample, answer.attack) == (row.id, 0, "prefill")
        assert (answer.text, answer.tokens) == (text, len(tokens))
        assert answer.status == ("ok" if tokens[-1] == END else "truncated")
        assert answer.text.startswith("sorry w") == bool(row.prefill)
    assert len({answer.text for answer in found}) == len(rows)
    assert answered([]) == []


@pytest.mark.parametrize("decoding", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_answers_do_not_depend_on_the_batch_size(decoding: Decoding) -> None:
    rows = prompts()
    expected = answered(rows, decoding)
    assert [(answer.id, answer.sample) for answer in expected] == [
        (row.id, sample) for row in rows for sample in range(decoding.samples)
    ]
    for size in (1, 5, 64):
        assert answered(rows, replace(decoding, batch_size=size)) == expected
    assert sorted(answered(rows[::-1], decoding), key=lambda a: (-a.id, a.sample)) == expected


def test_samples_differ_by_row_sample_and_seed() -> None:
    rows = [Prompt(n, (START, 9, 10)) for n in range(6)]
    found = answered(rows, SAMPLED)
    texts = [answer.text for answer in found]
    assert len(set(texts)) > 9
    assert texts != [answer.text for answer in answered(rows, replace(SAMPLED, seed=4))]


def test_answers_to_different_prompts_of_a_row_are_drawn_apart() -> None:
    """All say any word with the same chance: were the draws the same, so would be the answers."""
    network = model()
    with torch.no_grad():
        network.get_output_embeddings().weight.zero_()  # type: ignore[operator, union-attr]
    moved = torch.full((3, 32), 0.01, dtype=torch.float64)
    rows = [Prompt(7, (START, 9 + n % 20, 9 + n // 20)) for n in range(40)]
    rows += [
        replace(rows[0], prefill=(SORRY,)),
        replace(rows[0], opening=(SORRY,)),
        replace(rows[0], origin="a search"),
    ]
    rows += [replace(rows[0], delta=moved * n, space=Embeddings()) for n in (1, 2)]
    once = replace(SAMPLED, samples=1)

    def drawn(row: Prompt, **options: object) -> str:
        (answer,) = answered([row], once, network, **options)
        return answer.text.removeprefix(Words().decode(row.prefill, skip_special_tokens=True)).strip()

    texts = [drawn(row) for row in rows]
    assert len(set(texts)) > len(rows) - 4, "some end at once"
    assert len({text.split()[0] for text in texts if text}) > 10
    assert drawn(rows[3], attack="another", restart=2, key="other weights") == texts[3]


def test_rows_of_like_length_share_a_batch() -> None:
    network = model()
    seen = []
    handle = network.register_forward_pre_hook(
        lambda _module, _args, options: seen.append(options["attention_mask"].clone()), with_kwargs=True
    )
    answered(prompts(), network=network)
    handle.remove()
    assert seen[0].shape[0] == 3, "the shortest rows come first"
    lengths = sorted(len(row.ids) + len(row.prefill) for row in prompts())
    assert seen[0].sum(dim=1).tolist() == lengths[:3]


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Interrupted after the first batch of three, with half a line written: five of eight answers are still to make."""
    rows, store = prompts(), tmp_path / "kept" / "answers.jsonl"
    expected = answered(rows)
    network = model()

    def interrupted(part: Sequence[Prompt]) -> Sequence[Prompt]:
        if store.exists():
            raise KeyboardInterrupt
        return part

    named = [replace(row, origin="none") for row in rows]
    with pytest.raises(KeyboardInterrupt):
        answered(named, store=store, prepare=interrupted)
    kept = store.read_text().splitlines()
    assert len(kept) == 3
    with open(store, "a") as file:
        file.write(kept[0][: len(kept[0]) // 2])
    with counted(network) as batches:
        assert answered(named, network=network, store=store) == expected
    assert sum(batches) == 5
    lines = store.read_text().splitlines()
    assert lines[:3] == kept and len({json.loads(line)["key"] for line in lines}) == len(lines) == len(rows)
    with counted(network) as batches:
        assert answered(named, network=network, store=store, attack="again") == [
            replace(answer, attack="again") for answer in expected
        ]
        assert answered(named[::-1], replace(GREEDY, batch_size=1), network, store=store) == expected[::-1]
    assert batches == []


def test_more_samples_of_a_stored_run_keep_the_first_ones(tmp_path: Path) -> None:
    rows, store, network = prompts(4), tmp_path / "answers.jsonl", model()
    first = answered(rows, SAMPLED, network, store=store)
    with counted(network) as batches:
        more = answered(rows, replace(SAMPLED, samples=3), network, store=store)
    assert sum(batches) == 4
    assert [answer for answer in more if answer.sample < 2] == first


def test_answers_of_other_weights_are_not_taken(tmp_path: Path) -> None:
    rows, store, network = prompts(4), tmp_path / "answers.jsonl", model()
    answered(rows, store=store, key="one")
    with counted(network) as batches:
        answered(rows, network=network, store=store, key="other")
    assert sum(batches) == 4


DELTA = torch.ones(3, 32)
BASE = Prompt(1, (START, 9, ASSISTANT), delta=DELTA, space=Embeddings())
CHANGES = {
    "id": (replace(BASE, id=2), GREEDY),
    "ids": (replace(BASE, ids=(START, 10, ASSISTANT)), GREEDY),
    "prefill": (replace(BASE, prefill=(SORRY,)), GREEDY),
    "delta": (replace(BASE, delta=DELTA * 1.001), GREEDY),
    "dtype": (replace(BASE, delta=DELTA.double()), GREEDY),
    "half": (replace(BASE, delta=DELTA.bfloat16()), GREEDY),
    "space": (replace(BASE, space=Hidden(0)), GREEDY),
    "no delta": (replace(BASE, delta=None, space=None), GREEDY),
    "origin": (replace(BASE, origin="a search"), GREEDY),
    "length": (BASE, replace(GREEDY, max_new_tokens=9)),
    "temperature": (BASE, replace(GREEDY, temperature=1.0)),
}


def test_the_content_key_follows_from_everything_an_answer_does() -> None:
    plain = content_key(BASE, 0, GREEDY, (END,), "weights")
    found = {name: content_key(prompt, 0, decoding, (END,), "weights") for name, (prompt, decoding) in CHANGES.items()}
    found["ends"] = content_key(BASE, 0, GREEDY, (END, 3), "weights")
    found["weights"] = content_key(BASE, 0, GREEDY, (END,), "others")
    warm = replace(GREEDY, temperature=1.0)
    found["sample"] = content_key(BASE, 1, warm, (END,), "weights")
    found["seed"] = content_key(BASE, 0, replace(warm, seed=1), (END,), "weights")
    assert len({plain, *found.values()}) == 1 + len(found)
    same = replace(BASE, delta=DELTA.clone(), forwards=7)
    assert content_key(same, 0, replace(GREEDY, batch_size=9, seed=5), (END,), "weights") == plain
    searched = replace(BASE, origin="a search")
    assert content_key(replace(searched, delta=None, space=None), 0, GREEDY, (END,)) == content_key(
        searched, 0, GREEDY, (END,)
    )


def test_a_perturbed_prompt_is_answered_as_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = []
    for row in prompts(5):
        delta = torch.randn(len(row.ids), 32, generator=generator, dtype=torch.float64)
        rows.append(replace(row, delta=delta, space=Embeddings()) if row.id != 98 else row)
    found = answered(rows, replace(GREEDY, batch_size=5))
    for row, answer in zip(rows, found, strict=True):
        moved = None if row.delta is None else nn.functional.pad(row.delta, (0, 0, 0, len(row.prefill)))[None]
        (tokens,) = generate_tokens(
            model(),
            [[*row.ids, *row.prefill]],
            max_new_tokens=NEW,
            end_ids=(END,),
            pad_id=PAD,
            delta=moved,
            space=row.space,
        )
        said = [token for token in tokens if token != END]
        assert answer.text == Words().decode([*row.prefill, *said], skip_special_tokens=True)
    plain = [answer.text for answer in answered([replace(row, delta=None, space=None) for row in rows])]
    differs = [answer.text != text for answer, text in zip(found, plain, strict=True)]
    assert sum(differs) >= 3 and not differs[2], "row 98 has no delta"


def test_a_row_that_fails_is_marked_and_the_others_go_on(tmp_path: Path) -> None:
    rows, store = prompts(), tmp_path / "answers.jsonl"
    expected = answered(rows)
    broken = [*rows[:2], Prompt(7, (START, VOCABULARY)), *rows[2:], Prompt(8, ())]
    found = answered(broken, replace(GREEDY, batch_size=64), store=store)
    assert [answer for answer in found if answer.status != "error"] == expected
    failed = [answer for answer in found if answer.status == "error"]
    assert [answer.id for answer in failed] == [7, 8]
    assert "token ids from 1 to 32, and the model knows 0 to 31" in failed[0].reason
    assert "has no token" in failed[1].reason
    assert (failed[0].text, failed[0].tokens) == ("", 0)
    assert len(store.read_text().splitlines()) == len(rows), "what failed is tried again"
    with pytest.raises(GenerationError, match="Every one of 2 answers failed. The first: .*token ids from 1 to 32"):
        answered([Prompt(7, (START, VOCABULARY)), Prompt(8, ())])


def test_a_search_that_fails_for_one_row_costs_that_row_alone() -> None:
    rows = [replace(row, origin="none") for row in prompts()]

    def prepare(part: Sequence[Prompt]) -> Sequence[Prompt]:
        if any(row.id == 97 for row in part):
            raise ArithmeticError("no gradient")
        return [replace(row, forwards=5, backwards=4) for row in part]

    found = answered(rows, SAMPLED, prepare=prepare)
    assert [(a.id, a.status, a.reason) for a in found if a.status == "error"] == [
        (97, "error", "ArithmeticError: no gradient")
    ] * 2
    assert [a.forwards for a in found if a.id == 100] == [5, 0], "the search is counted once"
    assert sum(a.backwards for a in found) == 7 * 4


def test_what_adds_nothing_is_empty() -> None:
    (row,) = prompts(1)
    everything = tuple(range(VOCABULARY))
    found = answered([replace(row, prefill=(SORRY,)), replace(row, id=3)], ends=everything)
    assert [(a.status, a.text, a.tokens) for a in found] == [("empty", "sorry", 1), ("empty", "", 1)]
    assert answered([row], ends=())[0].status == "truncated"


def test_bad_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="decoding.max_new_tokens must be at least 1, got 0"):
        Decoding(max_new_tokens=0)
    with pytest.raises(ValueError, match="would give one answer 2 times"):
        Decoding(samples=2)
    with pytest.raises(ValueError, match="decoding.temperature must be 0 or more and finite, got nan"):
        Decoding(temperature=float("nan"))
    with pytest.raises(ValueError, match="an id of its own, got 100 more than once"):
        answered([*prompts(2), *prompts(1)])
    with pytest.raises(ValueError, match="need an origin"):
        answered(prompts(2), prepare=lambda part: part)
    with pytest.raises(ValueError, match="has 3 positions and the prompt 2"):
        Prompt(1, (1, 2), delta=DELTA, space=Embeddings())
    with pytest.raises(ValueError, match="both a delta and its space"):
        Prompt(1, (1, 2, 3), delta=DELTA)


HARMS: dict[str, Callable[[bytes], bytes]] = {
    "text": lambda line: line.replace(b'"text": "', b'"text": "x', 1),
    "number": lambda line: line.replace(b'"tokens": ', b'"tokens": 1', 1),
    "digest": lambda line: line.replace(b'"digest": "', b'"digest": "0', 1),
    "no digest": lambda line: json.dumps({k: v for k, v in json.loads(line).items() if k != "digest"}).encode(),
    "not UTF-8": lambda line: line.replace(b'"text": "', b'"text": "\xff', 1),
    "null": lambda line: b"null",
    "number alone": lambda line: b"1e999",
    "deep": lambda line: b"[" * 100_000,
    "brackets": lambda line: b'{"key": []}',
    "empty": lambda line: b"",
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_stored_answer_that_is_not_as_it_was_written_is_made_again(tmp_path: Path, harm: str) -> None:
    rows, store, network = prompts(4), tmp_path / "answers.jsonl", model()
    expected = answered(rows, network=network, store=store)
    lines = store.read_bytes().splitlines()
    store.write_bytes(b"\n".join([lines[0], HARMS[harm](lines[1]), *lines[2:]]) + b"\n")
    (told,) = repaired(files_of(store).there(), "answers")
    assert "answers.jsonl: 1 of 4 stored lines of answers are not as this version writes them (line 2)" in told
    with counted(network) as batches:
        assert answered(rows, network=network, store=store) == expected
    assert sum(batches) == 1 and repaired(files_of(store).there(), "answers") == []
    assert sorted(store.read_bytes().splitlines()) == sorted(lines)


@pytest.mark.parametrize(
    "told", [{"rows": {}}, {"key": "k", "answer": "text"}, {"key": "k", "answer": {"id": 1}}, {"key": 3, "answer": {}}]
)
def test_a_line_that_is_none_of_an_answer_tells_nothing(tmp_path: Path, told: dict[str, object]) -> None:
    network, rows, store = model(), prompts(2), tmp_path / "answers.jsonl"
    expected = answered(rows, network=network, store=store)
    keep(store, [told])
    assert answered(rows, network=network, store=store) == expected
    assert "1 of 3 stored lines" in repaired(files_of(store).there(), "answers", fits)[0]


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), WriteError("answers.jsonl cannot be written")]
)
def test_what_the_machine_refuses_is_no_failure_of_a_row(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(kept_answers, "keep", refusing)
    with pytest.raises(type(error), match=str(error.args[-1])):
        answered(prompts(4), store=tmp_path / "answers.jsonl")


def answer_thrice(place: str) -> None:
    """What each of two processes does: asks, asks as another attack, and asks that again."""
    dist.init_process_group("gloo")
    PartialState(cpu=True)
    folder = Path(place)
    for name, restart in (("one", 0), ("two", 1), ("two", 1)):
        found = answered(prompts(), SAMPLED, store=folder / "answers.jsonl", attack=name, restart=restart)
        (folder / f"found-{name}-{dist.get_rank()}.json").write_text(json.dumps([asdict(answer) for answer in found]))


def test_two_processes_share_the_rows_and_know_all_answers(tmp_path: Path) -> None:
    worked_in_two(answer_thrice, tmp_path)
    expected = answered(prompts(), SAMPLED, attack="one")
    shared = [replace(answer, attack="two", restart=1, shared="one") for answer in expected]
    for rank in range(2):
        for name, wanted in (("one", expected), ("two", shared)):
            rows = json.loads((tmp_path / f"found-{name}-{rank}.json").read_text())
            assert [Answer(**row) for row in rows] == wanted
    files = [tmp_path / "answers.jsonl", tmp_path / "answers-1.jsonl"]
    told = [[json.loads(line)["answer"] for line in file.read_text().splitlines()] for file in files]
    made = [sum(not answer["shared"] for answer in answers) for answers in told]
    assert made == [10, 6], "batches of 3, 3 and 2 rows with two samples each, in turn"
    assert [len(answers) for answers in told] == [10 + 16, 6], "one process writes what is shared, and once"
    network = model()
    with counted(network) as batches:
        assert answered(prompts(), SAMPLED, network, store=files[0], attack="one") == expected
    assert batches == []
