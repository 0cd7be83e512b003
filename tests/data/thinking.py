"""Chat templates that know thoughts, after the manners of published ones, and tokenizers for them."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from tests.data.chats import byte_level, metaspace, wrapped

SPECIAL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")
HEAD = "{% for m in messages if m.role != 'assistant' or not loop.last %}"

# The last answer is written after a block with its thought or none; earlier answers lose theirs.
BLOCK = """\
{%- set ns = namespace(asked=messages|length - 1, looking=true) -%}
{%- for m in messages[::-1] -%}
{%- if ns.looking and m.role == 'user' and not m.content.startswith('<tool_response>') -%}
{%- set ns.looking = false -%}{%- set ns.asked = messages|length - 1 - loop.index0 -%}
{%- endif -%}
{%- endfor -%}
{%- for m in messages -%}
{%- if m.role != 'assistant' -%}
{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' -}}
{%- else -%}
{%- set content = m.content -%}{%- set thought = '' -%}
{%- if m.reasoning_content is string -%}
{%- set thought = m.reasoning_content -%}
{%- elif '</think>' in content -%}
{%- set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') -%}
{%- set content = content.split('</think>')[-1].lstrip('\n') -%}
{%- endif -%}
{%- if loop.index0 > ns.asked and (loop.last or thought) -%}
{{- '<|im_start|>assistant\n<think>\n' + thought.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') -}}
{%- else -%}
{{- '<|im_start|>assistant\n' + content -}}
{%- endif -%}
{{- '<|im_end|>\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\n' -}}
{%- if enable_thinking is defined and enable_thinking is false -%}{{- '<think>\n\n</think>\n\n' -}}{%- endif -%}
{%- endif -%}"""
# The prompt begins a thought; in an answered chat there is none, and what the answer has of one is cut off.
BEGUN = """\
{{- bos_token -}}
{%- for m in messages -%}
{%- if m.role == 'assistant' -%}
{%- set content = m.content.split('</think>')[-1] if '</think>' in m.content else m.content -%}
{{- '<|im_start|>assistant|' + content + '<|im_end|>' -}}
{%- else -%}{{- '<|im_start|>' + m.role + '|' + m.content -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant|<think>\n' -}}{%- endif -%}"""
# The prompt begins a thought, which an answered chat ends.
FORCED = BLOCK.replace("{{- '<|im_start|>assistant\n' -}}\n", "{{- '<|im_start|>assistant\n<think>\n' -}}\n")
# With a variable the prompt begins a thought, without it ends one; an answered chat ends one always.
CLOSING = """\
{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '|' + ('</think>' if m.role == 'assistant' else '') + m.content + '<|im_end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant|' + ('<think>' if thinking else '</think>') -}}
{%- endif -%}"""
# No blanks inside of the block.
TIGHT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ '<think></think>\n' if loop.last and m.role == 'assistant' }}{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)
# Special tokens around thought and answer, and a block in the prompt alone.
SPOKEN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}|{{ '<|SPEAK|>' if m.role == 'assistant' }}{{ m.content }}"
    "{{ '<|SPOKEN|>' if m.role == 'assistant' }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant|"
    "{{ '<|START_THINKING|><|END_THINKING|>' if reasoning is false }}{% endif %}"
)
# Thoughts stand in a channel of their own.
CHANNELS = (
    "{% for m in messages %}<|start|>{{ m.role }}{{ '<|channel|>final' if m.role == 'assistant' }}<|message|>"
    "{{ m.content }}{{ '<|return|>' if loop.last and m.role == 'assistant' else '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}{# <|channel|>analysis<|message|> #}"
)
# The model writes its thought without the template's help.
FREE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}{# thoughts: [THINK] [/THINK] #}"
)
# The prompt ends with the user's turn, and the block is all that says who speaks.
SILENT = FREE.replace(" {{ m.content }}{{ eos", " <think>\n\n</think>\n\n{{ m.content }}{{ eos")


class Thinking(NamedTuple):
    """jinja; variables; tail: what the prompt ends with; opening: what stands between it and an answer; ends: the
    answer's end. added: tokens beside SPECIAL; special: whether they are special ones."""

    jinja: str
    tail: str
    opening: str
    end: str = "<|im_end|>"
    variables: dict[str, object] = {}  # noqa: RUF012 - never changed
    added: tuple[str, ...] = ("<think>", "</think>")
    special: bool = False


THOUGHT = ("<|START_THINKING|>", "<|END_THINKING|>", "<|SPEAK|>", "<|SPOKEN|>")
THINKING = {
    "block": Thinking(BLOCK, "<|im_start|>assistant\n", "<think>\n\n</think>\n\n"),
    "block_special": Thinking(BLOCK, "<|im_start|>assistant\n", "<think>\n\n</think>\n\n", special=True),
    "block_plain": Thinking(BLOCK, "<|im_start|>assistant\n", "<think>\n\n</think>\n\n", added=()),
    "block_off": Thinking(BLOCK, "<think>\n\n</think>\n\n", "", variables={"enable_thinking": False}),
    "begun": Thinking(BEGUN, "<|im_start|>assistant|<think>\n", "\n</think>\n\n"),
    "begun_plain": Thinking(BEGUN, "<|im_start|>assistant|<think>\n", "\n</think>\n\n", added=()),
    "forced": Thinking(FORCED, "<|im_start|>assistant\n<think>\n", "\n</think>\n\n"),
    "closing": Thinking(CLOSING, "<|im_start|>assistant|</think>", ""),
    "closing_begun": Thinking(CLOSING, "<|im_start|>assistant|<think>", "</think>", variables={"thinking": True}),
    "tight": Thinking(TIGHT, "<|im_start|>assistant", "\n<think></think>\n"),
    "spoken": Thinking(SPOKEN, "<|im_start|>assistant|", "<|SPEAK|>", "<|SPOKEN|>", added=THOUGHT, special=True),
    "spoken_off": Thinking(
        SPOKEN,
        "<|START_THINKING|><|END_THINKING|>",
        "<|SPEAK|>",
        "<|SPOKEN|>",
        {"reasoning": False},
        THOUGHT,
        special=True,
    ),
    "channels": Thinking(
        CHANNELS,
        "<|start|>assistant",
        "<|channel|>final<|message|>",
        "<|return|>",
        added=("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"),
        special=True,
    ),
    "free": Thinking(FREE, "[/INST]", "", "</s>", added=("[INST]", "[/INST]", "[THINK]", "[/THINK]"), special=True),
    "silent": Thinking(SILENT, "[/INST]", "<think>\n\n</think>\n\n", "</s>", added=("[INST]", "[/INST]")),
}
KINDS = ("byte", "metaspace_always", "metaspace_first")


@lru_cache
def _trained(kind: str) -> str:
    built = byte_level(SPECIAL) if kind == "byte" else metaspace(SPECIAL, scheme=kind.removeprefix("metaspace_"))
    return built.backend_tokenizer.to_str()


def thinking_tokenizer(name: str, kind: str = "byte") -> PreTrainedTokenizerFast:
    """A tokenizer of that kind with that template, a new one at each call."""
    chosen = THINKING[name]
    names = {} if kind == "byte" else {"unk_token": "<unk>"}
    built = wrapped(Tokenizer.from_str(_trained(kind)), **names)
    built.add_tokens([AddedToken(word, special=chosen.special, normalized=False) for word in chosen.added])
    built.chat_template = chosen.jinja
    return built
