"""Chat templates as real models have them, and tokenizers trained in the test, for the tests of chats."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

Chat = list[dict[str, str]]


class Template(NamedTuple):
    """jinja; special: its tokens, the first one bos; end: the last id of an answer; system: whether it allows one."""

    jinja: str
    special: tuple[str, ...]
    end: str
    system: bool = True


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a kind helper.<|im_end|>\n{% endif %}" + CHATML
)
LLAMA2 = (
    "{% if messages[0].role == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0].content %}"
    "{% else %}{% set rest = messages %}{% set system = none %}{% endif %}"
    "{% for m in rest %}{% if loop.first and system is not none %}"
    "{% set content = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + m.content %}"
    "{% else %}{% set content = m.content %}{% endif %}"
    "{% if m.role == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else 'user' }}\n{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
# The system text goes before the last user turn, as in the later Mistral templates.
MISTRAL = (
    "{% if messages[0].role == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0].content + '\n\n' %}"
    "{% else %}{% set rest = messages %}{% set system = '' %}{% endif %}{{ bos_token }}"
    "{% set users = rest | selectattr('role', 'equalto', 'user') | list | length %}{% for m in rest %}"
    "{% if m.role == 'user' %}[INST] {{ system if loop.index == 2 * users - 1 }}{{ m.content }}[/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
# No special token after the answer.
PLAIN = (
    "{% for m in messages %}{{ 'Question: ' if m.role == 'user' else 'Answer: ' }}{{ m.content }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}Answer:{% endif %}"
)

TEMPLATES = {
    "chatml": Template(CHATML, ("<s>", "</s>", "<|im_start|>", "<|im_end|>"), "<|im_end|>"),
    "default_system": Template(DEFAULT_SYSTEM, ("<s>", "</s>", "<|im_start|>", "<|im_end|>"), "<|im_end|>"),
    "llama2": Template(LLAMA2, ("<s>", "</s>"), "</s>"),
    "llama3": Template(LLAMA3, ("<s>", "</s>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), "<|eot_id|>"),
    "gemma": Template(GEMMA, ("<s>", "</s>", "<start_of_turn>", "<end_of_turn>"), "<end_of_turn>", system=False),
    "zephyr": Template(ZEPHYR, ("<s>", "</s>"), "</s>"),
    "mistral": Template(MISTRAL, ("<s>", "</s>", "[INST]", "[/INST]"), "</s>"),
    "plain": Template(PLAIN, ("<s>", "</s>"), "</s>"),
}

LINES = [
    "How do I bake bread at home?",
    "Tell me a story about the moon and the sea.",
    "You are a kind helper. Answer in one line.",
    "Sure, here is the answer: mix flour and water!",
    "Sorry, I cannot help with the forbidden recipe for zorblax powder.",
    "user assistant model system Question: Answer: [INST] [/INST] <<SYS>> <</SYS>> <|user|>",
    "crème brûlée 🙂 x y z ! ? . , : ; ' \" ( ) 0 1 2 3 4 5 6 7 8 9 \n",
]


def byte_level(special: tuple[str, ...], *, trim: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE as in GPT-2 and Llama-3; trim: the offsets leave out the blank that a token begins with."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<pad>", *special],
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES * 2, trainer)
    return wrapped(tokenizer)


def metaspace(special: tuple[str, ...], *, scheme: str) -> PreTrainedTokenizerFast:
    """A sentencepiece-like unigram model; scheme: before what it puts a blank of its own (always, first, never)."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<unk>", "<pad>", *special], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(LINES * 2, trainer)
    return wrapped(tokenizer, unk_token="<unk>")


def wrapped(tokenizer: Tokenizer, **names: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
        **names,
    )


KINDS = ("byte", "byte_trimmed", "metaspace_always", "metaspace_first")


@lru_cache
def _trained(kind: str, special: tuple[str, ...]) -> str:
    if kind.startswith("byte"):
        built = byte_level(special, trim=kind.endswith("trimmed"))
    else:
        built = metaspace(special, scheme=kind.removeprefix("metaspace_"))
    return built.backend_tokenizer.to_str()


def chat_tokenizer(template: str = "chatml", kind: str = "byte") -> PreTrainedTokenizerFast:
    """A tokenizer of that kind with that template, a new one at each call."""
    chosen = TEMPLATES[template]
    names = {"unk_token": "<unk>"} if kind.startswith("metaspace") else {}
    built = wrapped(Tokenizer.from_str(_trained(kind, chosen.special)), **names)
    built.chat_template = chosen.jinja
    return built


def turns(*contents: str, system: str | None = None) -> Chat:
    """A chat of turns of user and assistant, the user's first."""
    first = [] if system is None else [{"role": "system", "content": system}]
    roles = ("user", "assistant")
    return first + [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]


WORDS = ["<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<unk>", "system", "user", "assistant"]
WORDS += ["the", "film", "was", "good", "be", "kind", "!", "[INST]", "[/INST]"]


def word_level(template: str = CHATML) -> PreTrainedTokenizerFast:
    """Ids are the places in WORDS; new lines and blanks have no token."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(WORDS[:5])
    built = wrapped(tokenizer, unk_token="<unk>")
    built.chat_template = template
    return built
