"""The model asked without its own refusal direction: what is taken out, of what it is found, and that it comes back."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from tests.chat_run import tokenizer
from tests.chats import causal
from tests.measuring.test_rewritten_stubs import COMPLIES, REFUSES, REQUESTS, chats, rows, stub
from tests.streams import stream
from textadv.data import encode_chats
from textadv.data.rendering import Template
from textadv.measuring.judges.verdicts import REFUSAL_LISTS
from textadv.measuring.safety.ablated import RefusalAblation
from textadv.measuring.safety.adversaries import behaviours_of
from textadv.measuring.safety.elicitation import elicit
from textadv.measuring.safety.generate import Decoding
from textadv.models import counted_parameters, hidden_states
from textadv.models.ablating import ablating
from textadv.models.decoding import generate_tokens
from textadv.models.places import space_module
from textadv.values.batch import Role
from textadv.values.flops import Flops
from textadv.values.spaces import Hidden

LAYERS = (0, 2)


def directions() -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(2, 32, generator=draw, dtype=torch.float64), dim=1)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_nothing_is_left_along_a_direction_in_prompts_and_in_what_is_generated(name: str) -> None:
    model, seen = causal(name), list[torch.Tensor]()

    def watch(_module: object, _args: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    asked = {"max_new_tokens": 4, "end_ids": (), "pad_id": 0}
    before = generate_tokens(model, [[1, 5, 9]], **asked)  # type: ignore[arg-type]
    with ablating(model, LAYERS, directions()):
        handle = space_module(model, Hidden(2)).register_forward_hook(watch)
        generate_tokens(model, [[1, 5, 9]], **asked)  # type: ignore[arg-type]
        handle.remove()
    assert [states.shape[1] for states in seen] == [3, 1, 1, 1], "the prompt, and each token that was written"
    assert all(float((states @ directions()[1]).abs().max()) < 1e-10 for states in seen)
    assert generate_tokens(model, [[1, 5, 9]], **asked) == before, "the model is as it was"  # type: ignore[arg-type]


def test_what_enters_the_first_block_stays() -> None:
    model, seen = causal(), list[torch.Tensor]()
    handle = space_module(model, Hidden(0)).register_forward_pre_hook(
        lambda _module, args, given: seen.append(args[0] if args else given["hidden_states"]), with_kwargs=True
    )
    ids = torch.tensor([[1, 5, 9]])
    with torch.no_grad():
        model(input_ids=ids)
        with ablating(model, (0, 1), directions()):
            model(input_ids=ids)
    handle.remove()
    assert torch.equal(*seen) and float((seen[1] @ directions()[0]).abs().max()) > 0.01


def test_a_direction_of_zero_takes_nothing_out() -> None:
    model, batch = causal(), stream(Role.ADVERSARIAL, 4, ("safe", "harmful"), 0).batch(range(4))
    plain = hidden_states(model, batch, (2,))[0]
    with ablating(model, LAYERS, torch.zeros(2, 32)):
        assert torch.equal(hidden_states(model, batch, (2,))[0], plain)


def ablation() -> RefusalAblation:
    shown = encode_chats(chats(), Template(tokenizer()), 80)
    return RefusalAblation((0,), shown.batch(range(2)), shown.batch(range(2, 3)))


def test_a_refusal_that_lies_in_a_direction_is_gone_without_it() -> None:
    """The stub's state says what comes next: without the direction of its first word it has another one."""
    model = stub(REFUSES)
    chain = [*tokenizer()(REFUSES, add_special_tokens=False)["input_ids"]]
    first = torch.eye(32)[1:2]  # of the first word of the answer, which leads to the second
    asked = {"max_new_tokens": 3, "end_ids": (), "pad_id": 0}
    prompt = list(rows().prompts[0])
    assert generate_tokens(model, [prompt], **asked) == [chain[:3]]  # type: ignore[arg-type]
    with ablating(model, (0,), first):
        (said,) = generate_tokens(model, [prompt], **asked)  # type: ignore[arg-type]
    assert said[0] == chain[0] and said[1] != chain[1] and [*pairwise(chain)]


def test_each_model_has_its_own_directions_and_its_own_answers() -> None:
    adversary, found = ablation(), []
    for answer, share in ((REFUSES, 0), (COMPLIES, len(REQUESTS))):
        told = elicit(
            stub(answer),
            tokenizer(),
            rows(),
            REQUESTS,
            {"ablated": adversary},
            REFUSAL_LISTS["declines"],
            Decoding(max_new_tokens=12),
        )
        assert [(one.name, one.low.count) for one in told.attacks] == [("direct", share), ("ablated", share)]
        assert all(not said.shared for one in told.outcomes for said in one.answers), "no answer of the direct request"
        (each,) = [*adversary.rounds(stub(answer), rows(), behaviours_of(rows()))]
        found.append(each.prompts[0].origin)
        assert each.prompts[0].forwards == 1 and len(each.prompts) == len(REQUESTS)
    assert found[0].startswith("refusal ablation (0,)") and "from 2 harmful and 1 harmless" in str(adversary)


def test_what_finding_the_directions_takes_is_counted_and_shared_out() -> None:
    model, adversary = stub(REFUSES), ablation()
    (each,) = [*adversary.rounds(model, rows(), behaviours_of(rows()))]
    tokens = sum(len(prompt) for prompt in encode_chats(chats(), Template(tokenizer()), 80).prompts[:3])
    share = Flops.of(counted_parameters(model), forward=-(-tokens // len(REQUESTS)))
    assert share.total and [prompt.flops for prompt in each.prompts] == [share] * len(REQUESTS)
