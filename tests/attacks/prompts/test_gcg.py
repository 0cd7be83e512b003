"""Searches of suffixes: what comes back is what it claims to be, sent as text; nothing else is touched."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.attacks.prompts.suffixes import TARGET, asked, sent_ids, victim, whole_pass
from textadv.attacks.prompts.exhaustive import Exhaustive
from textadv.attacks.prompts.first_suffix import first_row
from textadv.attacks.prompts.gcg import Gcg
from textadv.attacks.prompts.norms import norms, scaled_at_norms
from textadv.attacks.prompts.rewritten import AskedFor, RewritingAttack, Rewritten
from textadv.attacks.prompts.soft_suffix import SoftSuffix
from textadv.attacks.prompts.victim import ChatVictim
from textadv.data.rendering import one_turn
from textadv.values.losses import cross_entropy
from textadv.values.randomness import rng_state

BRIEF = Gcg(steps=3, length=4, width=24, top_k=16)
SOFT = SoftSuffix(steps=4, length=4, suffixes=3)
KINDS = [
    ("chatml", "byte"),
    ("llama3", "byte_trimmed"),
    ("llama2", "metaspace_first"),
    ("gemma", "metaspace_always"),
    ("mistral", "byte"),
    ("plain", "byte"),
    ("chatml", "words"),
]


def told(victim: ChatVictim, row: Rewritten, target: str) -> tuple[float, bool]:
    """The loss and the greedy answer after what the row's messages become when they are sent."""
    assert sent_ids(victim.template.tokenizer, row) == list(row.ids)
    return whole_pass(victim.model, row.ids, victim.reply(row.messages, target).answer)


@pytest.mark.parametrize("attack", [BRIEF, SOFT], ids=["gcg", "soft_suffix"])
@pytest.mark.parametrize(("template", "kind"), KINDS)
def test_sent_as_text_it_has_the_loss_and_the_answer_that_were_claimed(
    template: str, kind: str, attack: RewritingAttack
) -> None:
    one, target = victim(template, kind), "the film" if kind == "words" else "Sure"
    row = asked("the film was good" if kind == "words" else "Tell me a story", target)
    [found] = attack(one, [row])
    loss, says = told(one, found, target)
    assert found.loss == pytest.approx(loss, rel=1e-4) and (found.status == "reached") == says
    assert found.messages[-1]["content"].startswith(row.messages[-1]["content"])
    assert found.path[-1][1] <= found.path[0][1] and found.messages != row.messages


@pytest.mark.parametrize(("template", "kind"), KINDS)
def test_only_tokens_that_come_back_from_text_survive(template: str, kind: str) -> None:
    one = victim(template, kind)
    words = kind == "words"
    row = asked("the film" if words else "Tell me a story", "the film" if words else "Sure")
    slotted = first_row(one, row, None, 3, cross_entropy).slotted
    rows = one.vocabulary[torch.randint(len(one.vocabulary), (120, 3), generator=torch.Generator().manual_seed(0))]
    kept = one.survives(slotted, rows)
    tokenizer = one.template.tokenizer
    for tokens, survives, text in zip(rows.tolist(), kept.tolist(), one.texts(slotted, rows), strict=True):
        back = sent_ids(tokenizer, Rewritten(0, slotted.sent(text)))
        same = back == [*slotted.before, *tokens, *slotted.after]
        # A text that ends in blanks is left out wherever templates may strip it.
        assert same if survives else not same or text != text.rstrip()
    assert int(kept.sum()) > 0 and (words or int(kept.sum()) < 120)


def test_losses_of_many_suffixes_are_those_of_whole_passes() -> None:
    one = victim()
    row = first_row(one, asked(), None, 4, cross_entropy)
    draw = torch.Generator().manual_seed(1)
    near = row.slotted.row
    rows = near.repeat(30, 1)
    rows[torch.arange(30), torch.arange(30) % 4] = one.vocabulary[:30]
    rows[5:8] = one.vocabulary[torch.randint(len(one.vocabulary), (3, 4), generator=draw)]
    found = row.losses(rows, near)
    for tokens, (loss, says) in zip(rows.tolist(), found.tolist(), strict=True):
        prompt = [*row.slotted.before, *tokens, *row.slotted.after]
        wanted, said = whole_pass(one.model, prompt, row.slotted.reply.answer)
        assert loss == pytest.approx(wanted, rel=1e-4) and bool(says) == said


def test_what_was_sent_is_counted_as_it_was_sent() -> None:
    one = victim()
    seen: list[int] = []
    counting = one.model.get_submodule("model.embed_tokens").register_forward_hook(
        lambda module, args, output: seen.append(args[0].numel())
    )
    row = first_row(one, asked(), None, 4, cross_entropy)
    row.losses(row.slotted.row.unsqueeze(0))
    row.losses(row.slotted.row.repeat(9, 1), row.slotted.row)
    before = sum(seen)
    row.slope(row.slotted.row)
    counting.remove()
    # A model is met with a pass that tries its cache, twice; it is no part of the search.
    tried = 2 * (len(row.slotted.before) + len(row.slotted.slots) + len(row.slotted.after + row.slotted.reply.answer))
    tried -= len(row.slotted.before)
    table = len(one.vocabulary)
    assert before - tried == row.passes.forward_tokens - row.passes.backward_tokens
    assert sum(seen) - before - table == row.passes.backward_tokens


def toy(attack: RewritingAttack, texts: tuple[str, ...] = ("the film", "be kind", "was good !")) -> list[float]:
    """The losses that an attack ends at on a vocabulary of a dozen words."""
    rows = [asked(text, "the film was", row) for row, text in enumerate(texts)]
    return [found.loss or math.nan for found in attack(victim("chatml", "words"), rows)]


def test_no_search_comes_below_the_exhaustive_one() -> None:
    best = toy(Exhaustive(length=2))
    started = toy(Gcg(steps=1, length=2, width=1, early_stop=False))
    for attack, gap in (
        (Gcg(steps=12, length=2, width=16, top_k=8, early_stop=False), 0.3),
        (SoftSuffix(steps=30, length=2, suffixes=4, early_stop=False), 0.7),
    ):
        found = toy(attack)
        assert all(loss >= least - 1e-5 for loss, least in zip(found, best, strict=True))
        assert sum(found) - sum(best) <= gap * (sum(started) - sum(best)), "the gap, as a share of the way"


def test_an_exhaustive_search_that_would_not_end_is_refused() -> None:
    with pytest.raises(ValueError, match="tries 1000000 suffixes at most"):
        Exhaustive(length=5)(victim(), [asked()])


# ---- what is left as it was


def state(network: nn.Module) -> tuple[object, ...]:
    """Weights, their gradients, modes and hooks, and the global generators."""
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    grads = [weight.grad is None or float(weight.grad.sum()) for weight in network.parameters()]
    modes = [module.training for module in network.modules()]
    hooks = [len(module._forward_hooks) + len(module._backward_hooks) for module in network.modules()]
    return weights, grads, modes, hooks, rng_state()["cpu"].tolist()


@pytest.mark.parametrize(
    "attack", [replace(BRIEF, norm_scale=0.5, momentum=0.5), SOFT, Exhaustive(1)], ids=["gcg", "soft_suffix", "all"]
)
def test_weights_gradients_modes_hooks_and_generators_stay(attack: RewritingAttack) -> None:
    one = victim()
    one.model.train()
    next(one.model.parameters()).grad = torch.ones_like(next(one.model.parameters()))
    before = state(one.model)
    attack(one, [asked()])
    after = state(one.model)
    assert before[1:] == after[1:]
    torch.testing.assert_close(before[0], after[0], rtol=0, atol=0)


def test_a_search_that_breaks_off_leaves_no_hooks() -> None:
    one = victim()
    before = state(one.model)[3]

    def broken(logits: Tensor, batch: object) -> Tensor:
        raise RuntimeError("broken")

    row = first_row(one, asked(), None, 4, broken, 0.5)
    with pytest.raises(RuntimeError, match="broken"):
        row.slope(row.slotted.row)
    assert state(one.model)[3] == before


# ---- the slope


def test_the_slope_is_that_of_the_embeddings() -> None:
    one = victim()
    row = first_row(one, asked(), None, 4, cross_entropy)
    found = row.slope(row.slotted.row)
    table = one.model.get_input_embeddings().weight.detach()
    own = torch.zeros(4, len(table)).scatter(1, row.slotted.row.unsqueeze(1), 1).requires_grad_()
    chat = row.slotted
    head, tail = (table[list(part)] for part in (chat.before, (*chat.after, *chat.reply.answer)))
    logits = one.model(inputs_embeds=torch.cat([head, own @ table, tail]).unsqueeze(0)).logits[0]
    wanted = torch.tensor(chat.reply.answer)
    loss = torch.nn.functional.cross_entropy(logits[-len(wanted) - 1 : -1], wanted)
    (slope,) = torch.autograd.grad(loss, own)
    slope = slope[:, one.vocabulary]
    torch.testing.assert_close(found / found.norm(), slope / slope.norm(), rtol=1e-3, atol=1e-5)


def test_the_slope_of_a_row_counts_as_much_as_that_of_any_other() -> None:
    row = first_row(victim(), asked(), None, 4, cross_entropy)
    steeper = replace(row, loss=lambda logits, batch: 10 * cross_entropy(logits, batch))
    torch.testing.assert_close(steeper.slope(row.slotted.row), row.slope(row.slotted.row))


def test_a_target_is_how_an_answer_begins_and_not_where_it_ends() -> None:
    one = victim("chatml")
    reply = one.reply(asked().messages, TARGET)
    tokenizer = one.template.tokenizer
    assert tokenizer.decode(reply.answer) == TARGET
    whole = tokenizer.apply_chat_template([*asked().messages, {"role": "assistant", "content": TARGET}], tokenize=False)
    assert whole.partition(TARGET)[2].strip(), "the template ends the turn"


def test_layer_norms_weaken_the_slope_as_a_part_held_constant_would() -> None:
    one = victim()
    row = first_row(one, asked(), None, 4, cross_entropy, 0.3)
    found, plain = row.slope(row.slotted.row), replace(row, norm_scale=1.0).slope(row.slotted.row)

    def held(module: nn.Module, args: object, output: Tensor) -> Tensor:
        return 0.3 * output + 0.7 * output.detach()

    hooks = [module.register_forward_hook(held) for module in norms(one.model)]
    wanted = replace(row, norm_scale=1.0).slope(row.slotted.row)
    for hook in hooks:
        hook.remove()
    assert len(hooks) == 5, "two of each block, and the last"
    torch.testing.assert_close(found, wanted)
    assert not torch.allclose(found, plain, rtol=1e-2)
    with scaled_at_norms(one.model, 0.3):
        weakened = row.losses(row.slotted.row.unsqueeze(0))
    assert torch.equal(weakened, row.losses(row.slotted.row.unsqueeze(0))), "the way forward is the same"


# ---- rows


def test_a_row_gets_the_same_alone_and_among_others() -> None:
    rows = [asked(row=3), asked("How do I bake bread at home?", row=4), asked("Answer in one line.", row=5)]
    for attack in (BRIEF, SOFT):
        together = attack(victim(), rows)
        assert [together[1]] == attack(victim(), rows[1:2])
        assert len({row.messages[-1]["content"][-6:] for row in together}) > 1


def test_one_suffix_serves_all_rows() -> None:
    rows = [asked(row=3), asked("", row=4), asked("How do I bake bread at home?", row=5), asked(target="", row=6)]
    found = replace(BRIEF, universal=True, steps=5)(victim(), rows)
    pairs = [(now.messages[-1]["content"], one.messages[-1]["content"]) for now, one in zip(found, rows, strict=True)]
    suffixes = [now.removeprefix(before) for now, before in pairs]
    assert suffixes[0] == suffixes[2] != ""
    assert [row.status == "failed" for row in found] == [False, True, False, True]
    losses = [told(victim(), found[n], rows[n].target)[0] for n in (0, 2)]
    assert [found[0].loss, found[2].loss] == pytest.approx(losses, rel=1e-4)
    assert (
        found[0].path[-1][1] == pytest.approx(sum(losses) / 2, rel=1e-4) and found[0].path[-1][1] < found[0].path[0][1]
    )


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (AskedFor(1, tuple(one_turn("Tell me a story")), ""), "there is no target to aim at"),
        (AskedFor(1, tuple(one_turn("Tell me a story")), None), "there is no target to aim at"),  # type: ignore[arg-type]
        (AskedFor(1, ({"role": "user", "content": None},), "Sure"), "the prompt is 'None'"),  # type: ignore[dict-item]
        (AskedFor(1, (), "Sure"), "the prompt is 'None'"),
        (AskedFor(1, tuple(one_turn("   ")), "Sure"), "the prompt is '   '"),
        (AskedFor(1, tuple(one_turn("moon " * 300)), "Sure"), "and the model reads 96"),
        (AskedFor(1, tuple(one_turn("moon")), "sea " * 300), "and the model reads 96"),
    ],
)
@pytest.mark.parametrize("attack", [BRIEF, SOFT, Exhaustive(1)], ids=["gcg", "soft_suffix", "all"])
def test_a_row_that_cannot_be_searched_says_why_and_loses_no_other(
    row: AskedFor, why: str, attack: RewritingAttack
) -> None:
    kept: list[Rewritten] = []
    lost, found = attack(victim(positions=96), [row, asked(row=2)], found=kept.append)
    assert lost.status == "failed" and why in lost.why and lost.ids == () and lost.id == 1
    assert found.status != "failed" and kept == [lost, found]


def test_a_suffix_longer_than_the_context_is_told_of() -> None:
    for attack in (replace(BRIEF, length=120), replace(SOFT, length=120)):
        [found] = attack(victim(positions=96), [asked()])
        assert found.status == "failed" and "length: 120" in found.why and "the model reads 96" in found.why


def test_a_search_ends_where_the_model_says_the_target() -> None:
    one = victim("chatml", "words")
    prompt = one.encoded(one_turn("the film be kind"))
    says = one.model(input_ids=torch.tensor([list(prompt)])).logits[0, -1].argmax()
    target = one.template.tokenizer.decode([int(says)])
    row = replace(asked("the film", target))
    stopped, whole = (Gcg(init=" be kind", steps=3, width=4, early_stop=stop)(one, [row])[0] for stop in (True, False))
    assert stopped.status == "reached" and stopped.passes.backwards == 0 < whole.passes.backwards
    assert stopped.messages[-1]["content"] == "the film be kind"


# ---- settings


def ends(change: Callable[[Gcg], Gcg]) -> str:
    return change(replace(BRIEF, early_stop=False))(victim(), [asked()])[0].messages[-1]["content"]


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "cw"},
        {"loss": "mellowmax"},
        {"momentum": 0.9},
        {"norm_scale": 0.1},
        {"replaced": 2},
        {"seed": 1},
        {"top_k": 2},
        {"width": 2},
        {"init": " the moon"},
        {"length": 3},
        {"steps": 1},
        {"printable": False},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_each_setting_is_heard(changes: dict[str, object]) -> None:
    def plain(attack: Gcg) -> str:
        return attack(victim(), [asked()])[0].messages[-1]["content"]

    before = replace(BRIEF, early_stop=False)
    assert plain(replace(before, **changes)) != plain(before) and repr(replace(before, **changes)) != repr(before)


def test_a_buffer_never_goes_on_from_worse_than_it_has() -> None:
    kept = replace(BRIEF, steps=6, buffer=1, early_stop=False)(victim(), [asked()])[0]
    newest = replace(BRIEF, steps=6, buffer=0, early_stop=False)(victim(), [asked()])[0]
    assert kept.messages != newest.messages or kept.path == newest.path
    assert [loss for _, loss in kept.path] == sorted((loss for _, loss in kept.path), reverse=True)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"steps": 0}, "steps of gcg must be at least 1, got 0"),
        ({"loss": "hinge"}, "loss of gcg must be one of ce, cw, mellowmax, got 'hinge'"),
        ({"momentum": 1.0}, "a momentum from 0 to below 1"),
        ({"norm_scale": 0.0}, "a norm_scale above 0 to 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        replace(BRIEF, **changes)  # type: ignore[arg-type]


def test_a_search_for_all_rows_that_breaks_down_is_a_status_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object) -> None:
        raise RuntimeError("no memory is left")

    monkeypatch.setattr(Gcg, "_searched", broken)
    seen: list[Rewritten] = []
    found = replace(BRIEF, universal=True)(victim(), [asked(row=1), asked("And another", row=2)], found=seen.append)
    assert [(row.id, row.status, row.why) for row in found] == [
        (1, "failed", "RuntimeError: no memory is left"),
        (2, "failed", "RuntimeError: no memory is left"),
    ]
    assert seen == found
