"""What a chat model is measured with, on test rows and smaller on validation rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from textadv.attacks import ThreatModel
from textadv.config.types import ConfigError
from textadv.data import Chat, ChatSplits, DataError, encode_chats
from textadv.data.benchmarks import read_instructed
from textadv.data.rendering import Template
from textadv.measuring.judges.verdicts import REFUSAL_LISTS
from textadv.measuring.safety.adversaries import Adversary, Direct, EmbeddingAttack, Prefill
from textadv.measuring.safety.chat import Asked, Panel
from textadv.measuring.safety.generate import Decoding
from textadv.measuring.safety.subject import TARGET_WORDS
from textadv.models import LoadedModel, TokenRows, require_embedded, require_longest
from textadv.models.adapter_scale import has_adapter, unscaled
from textadv.tasks.chat.asked import benign_prompts, questions
from textadv.tasks.chat.attacks import chat_attacks, chat_curve
from textadv.tasks.chat.base import deciding, useful_answers
from textadv.tasks.chat.budget import Budget
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.chat.elicitation import measuring_attack
from textadv.tasks.chat.template import template
from textadv.values.batch import Role
from textadv.values.randomness import seeded_sample

NAMED = 3
"""Of the rows that are left out so many are named."""
BEHAVIOUR_DRAW, BENIGN_DRAW, UTILITY_DRAW, SELECTION_DRAW = 31, 32, 33, 34


def requests(chats: Sequence[Chat]) -> tuple[str, ...]:
    """What the user asks in each chat, in all turns."""
    return tuple(chat.request for chat in chats)


def shown(chats: Sequence[Chat]) -> tuple[str, ...]:
    """What judges see of each chat: all its turns."""
    return tuple(chat.conversation for chat in chats)


def _targets(chats: Sequence[Chat], used: Template) -> tuple[str, ...]:
    """What the adversary wants said in each chat, thoughts left out."""
    return tuple(used.split(chat.answers["harmful"]).text for chat in chats)


def _drawn(config: ChatRunConfig, draw: int, chats: Sequence[Chat], wanted: int | None) -> list[Chat]:
    """A seeded subset, in order; each chat once, whatever others share of its turns."""
    once = list({chat.conversation: chat for chat in reversed(chats)}.values())[::-1]
    return [once[place] for place in seeded_sample(range(len(once)), wanted, config.seed, draw)]


def repeated_notes(streams: Mapping[Role, ChatSplits]) -> Iterator[str]:
    """A sentence for each stream whose test rows hold one chat with other answers: only the first is measured."""
    for role, answer in ((Role.ADVERSARIAL, "harmful"), (Role.UTILITY, "response")):
        first: dict[str, str] = {}
        left: dict[tuple[str, str], str] = {}
        for chat in streams[role].test if role in streams else ():
            own = chat.answers[answer]
            if own != first.setdefault(chat.conversation, own):
                left.setdefault((chat.conversation, own), chat.place)
        if left:
            key, what = f"data.{role.name.lower()}", "target" if role == Role.ADVERSARIAL else "answer"
            places = list(dict.fromkeys(place.removeprefix(f"{key}: ") for place in left.values()))
            count = f"{len(left)} other {what}s are" if len(left) > 1 else f"1 other {what} is"
            yield (
                f"{key}: of test chats that stand there more than once {count} not measured: each chat is asked once, "
                f"with its first {what}. Left out: {', '.join(places[:NAMED])}{', ...' if places[NAMED:] else '.'}"
            )


def _test(streams: Mapping[Role, ChatSplits], role: Role) -> tuple[Chat, ...]:
    found = streams[role].test if role in streams else ()
    if not found and role in streams:
        key = role.name.lower()
        raise DataError(
            f"data.{key}: no test rows. Name data.{key}.test, or hold some out with data.{key}.test_fraction."
        )
    return found


def panel(config: ChatRunConfig, loaded: LoadedModel, streams: Mapping[Role, ChatSplits], threat: ThreatModel) -> Panel:
    """What is measured on test rows, with every attack. Raises ConfigError or DataError where it cannot be."""
    wanted, used = config.evaluation, template(config.model, loaded, config.data.surrogates)
    chats = _drawn(config, BEHAVIOUR_DRAW, _test(streams, Role.ADVERSARIAL), wanted.behaviours)
    rows = encode_chats(chats, used, config.data.max_length, editable=config.data.editable)
    utility = _drawn(config, UTILITY_DRAW, _test(streams, Role.UTILITY), wanted.utility)
    benign = {}
    if Role.BORDERLINE in streams:
        close = _drawn(config, BENIGN_DRAW, _test(streams, Role.BORDERLINE), wanted.benign)
        benign["borderline"] = Asked.of_chats(used, close)
    for name, path in wanted.over_refusal.items():
        prompts = benign_prompts(name, path, config.data.surrogates)
        kept = seeded_sample(range(len(prompts)), wanted.benign, config.seed, BENIGN_DRAW)
        benign[name] = Asked.of(used, [prompts[place] for place in kept], kept)
    instructions = {}
    for name, path in wanted.instructions.items():
        found = read_instructed(path, config.data.surrogates)
        instructions[name] = (found, Asked.of(used, [prompt.prompt for prompt in found]))
    targets = _targets(chats, used)
    others = tuple(wanted.second_judges(dict(zip(shown(chats), targets, strict=True))))
    decoding = Decoding(
        wanted.max_new_tokens, wanted.temperature, wanted.samples, config.seed, batch_size=wanted.batch_size
    )
    budget = Budget.of(config, loaded.model, rows, decoding)
    return Panel(
        behaviours=rows,
        requests=requests(chats),
        attacks=budget.fitted(lambda fewer: chat_attacks(fewer, loaded, chats, threat, streams)),
        curve=budget.fitted_curve(lambda fewer: chat_curve(fewer, loaded, threat)),
        judge=REFUSAL_LISTS[wanted.judge],
        others=others,
        benign=benign,
        utility=encode_chats(utility, used, config.data.max_length),
        questions={name: questions(name, path, config.data.surrogates) for name, path in wanted.questions.items()},
        instructions=instructions,
        decoding=decoding,
        success_at=tuple(wanted.success_at),
        budget=budget.flops,
        batch_invariance=wanted.batch_invariance,
        chats=tuple(chat.messages for chat in chats),
        targets=targets,
        target_words=wanted.target_words or TARGET_WORDS,
        useful=useful_answers(utility, used),
        decides=deciding(others),
        shown=shown(chats),
        scales=_scales(config, loaded),
    )


def _scales(config: ChatRunConfig, loaded: LoadedModel) -> tuple[float, ...]:
    """The scales of the adapter that are measured; none where there is no adapter: see `require_scaled`.

    Raises ConfigError where a scale would take back a part of the adapter only.
    """
    wanted = config.evaluation.adapter_scales
    if not wanted or not has_adapter(loaded.model):
        return ()
    beside = unscaled(loaded.model)
    if beside is not None:
        raise ConfigError(
            [
                f"evaluation.adapter_scales: the adapter of {config.model.name} has {beside} beside its LoRA factors, "
                "which no scale takes back: at 0 it would not be the model without it. Leave evaluation.adapter_scales "
                "out and measure its base model as well, or measure an adapter of LoRA factors alone."
            ]
        )
    return tuple(wanted)


def require_scaled(config: ChatRunConfig, panels: Mapping[str, Panel]) -> tuple[str, ...]:
    """A note where some of the models have no adapter that evaluation.adapter_scales could scale.

    panels: by what model.name says of each model. Raises ConfigError where none of them has one.
    """
    without = [name for name, one in panels.items() if not one.scales]
    if not config.evaluation.adapter_scales or not without:
        return ()
    have = f"{' and '.join(without)} {'has' if len(without) == 1 else 'have'} no LoRA adapter to scale"
    if len(without) == len(panels):
        raise ConfigError(
            [
                f"evaluation.adapter_scales: {have}. Measure the adapter's own folder in place of the merged model, "
                "set model.lora, or leave evaluation.adapter_scales out."
            ]
        )
    return (f"evaluation.adapter_scales: {have}, and {'is' if len(without) == 1 else 'are'} left out of it.",)


def selection(
    config: ChatRunConfig, loaded: LoadedModel, streams: Mapping[Role, ChatSplits], threat: ThreatModel
) -> Panel:
    """Direct request, one prefill and the embedding attack on validation behaviours; benign validation prompts."""
    wanted = config.selection
    chats = _drawn(config, SELECTION_DRAW, streams[Role.ADVERSARIAL].validation, wanted.rows)
    close = streams.get(Role.BORDERLINE, streams[Role.UTILITY]).validation
    asked = _drawn(config, SELECTION_DRAW, close, wanted.rows)
    if not chats or not asked:
        raise DataError("selection: adversarial and borderline (or utility) need validation rows, and one has none.")
    attack = measuring_attack(wanted.attack, "selection.attack", threat, config.seed)
    attacks: dict[str, Adversary] = {"direct": Direct(), "embedding": EmbeddingAttack(attack)}
    if wanted.prefill:
        attacks["prefill"] = Prefill(wanted.prefill)
    used = template(config.model, loaded, config.data.surrogates)
    rows = encode_chats(chats, used, config.data.max_length, editable=config.data.editable)
    return Panel(
        behaviours=rows,
        requests=requests(chats),
        attacks=attacks,
        judge=REFUSAL_LISTS[config.evaluation.judge],
        others=(),
        benign={"benign": Asked.of_chats(used, asked)},
        utility=rows,
        questions={},
        instructions={},
        decoding=Decoding(wanted.max_new_tokens, batch_size=config.evaluation.batch_size),
        shown=shown(chats),
    )


def read_panel(config: ChatRunConfig, loaded: LoadedModel, found: Panel) -> None:
    """Looks up every token of chats, prompts to be answered and questions in the model's table, and sends the longest
    chat through. Raises ModelError where the model cannot read one."""
    chats = {"behaviour": found.behaviours, "utility": found.utility}
    asked = {f"{name} prompt": one for name, one in found.benign.items()}
    asked |= {f"evaluation.instructions.{name}": one for name, (_, one) in found.instructions.items()}
    prompts = {name: TokenRows(range(len(one.ids)), one.ids) for name, one in asked.items()}
    for name, each in found.questions.items():
        texts = [" ".join((one.question, *one.choices)) for one in each]
        tokens = loaded.tokenizer(texts, verbose=False)["input_ids"] if texts else []
        prompts[f"evaluation.questions.{name}"] = TokenRows(range(len(texts)), tokens)
    require_embedded(config.model.name, loaded.model, loaded.tokenizer, {**chats, **prompts})
    require_longest(config.model.name, loaded.model, chats, config.data.max_length)
