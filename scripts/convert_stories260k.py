"""Writes stories260K, a real language model of 260,000 parameters, as a Llama folder that `model.name` can name.

    python scripts/convert_stories260k.py --weights ../shared/weights/stories260K/stories260K.bin \
        --tokenizer ../shared/weights/stories260K/tok512.bin --output stories260K

Both files are in the format of llama2.c, by which the model was trained on TinyStories (arXiv:2305.07759). It is no
chat model: it continues stories and ends none with a token of its own but <s>, where the next story would begin. The
chat template written with it, <s>content</s> for each turn and <s> for the answer to come, only lets it run
through a chat recipe unchanged; what it answers there means nothing before training.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from torch import Tensor

from textadv.runs.screen import parser as reader
from textadv.values.host.printable import tell

SPACE = "\u2581"
UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"
SPECIAL = (UNKNOWN, BEGIN, END)
FIRST_PIECE = len(SPECIAL) + 256
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ bos_token + message['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ bos_token }}{% endif %}"
)


class Header(NamedTuple):
    """The seven int32 that a weights file begins with; a negative vocab_size says that the output layer has its own
    weights."""

    dim: int
    hidden_dim: int
    layers: int
    heads: int
    kv_heads: int
    vocab_size: int
    positions: int


def read_weights(path: Path) -> tuple[Header, dict[str, Tensor]]:
    """The header and the tensors under the names that Hugging Face's Llama gives them.

    Raises SystemExit where the file's size does not fit its header.
    """
    content = path.read_bytes()
    header = Header(*struct.unpack_from("<7i", content))
    values = torch.from_numpy(np.frombuffer(content, dtype="<f4", offset=struct.calcsize("<7i")).copy())
    shapes = _shapes(header)
    sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    if sum(sizes.values()) != len(values):
        raise SystemExit(
            f"error: {path} holds {len(values)} numbers and its header asks for {sum(sizes.values())}: {header}. "
            "It must be an uncompressed float32 file of llama2.c's first version."
        )
    parts = dict(zip(sizes, values.split(list(sizes.values())), strict=True))
    return header, _renamed(header, {name: parts[name].reshape(shape) for name, shape in shapes.items()})


def _shapes(header: Header) -> dict[str, tuple[int, ...]]:
    """The tensors of a file in their order; each kind has those of all layers together."""
    dim, hidden, layers, heads, kv_heads, vocabulary, positions = header
    kv_dim = dim // heads * kv_heads
    shapes: dict[str, tuple[int, ...]] = {
        "embed_tokens": (abs(vocabulary), dim),
        "input_layernorm": (layers, dim),
        "self_attn.q_proj": (layers, dim, dim),
        "self_attn.k_proj": (layers, kv_dim, dim),
        "self_attn.v_proj": (layers, kv_dim, dim),
        "self_attn.o_proj": (layers, dim, dim),
        "post_attention_layernorm": (layers, dim),
        "mlp.gate_proj": (layers, hidden, dim),
        "mlp.down_proj": (layers, dim, hidden),
        "mlp.up_proj": (layers, hidden, dim),
        "norm": (dim,),
        "rotary cosines": (positions, dim // heads // 2),
        "rotary sines": (positions, dim // heads // 2),
    }
    return shapes if vocabulary > 0 else shapes | {"lm_head": (-vocabulary, dim)}


def _renamed(header: Header, parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """One tensor per layer; the rotary tables are left out, since the model computes its own."""
    named = {f"model.{name}.weight": parts[name] for name in ("embed_tokens", "norm")}
    if "lm_head" in parts:
        named["lm_head.weight"] = parts["lm_head"]
    heads = {"self_attn.q_proj": header.heads, "self_attn.k_proj": header.kv_heads}
    for name, stacked in parts.items():
        if "_proj" in name or "layernorm" in name:
            for layer, weight in enumerate(stacked):
                turned = rotary_halves(weight, heads[name]) if name in heads else weight
                named[f"model.layers.{layer}.{name}.weight"] = turned.contiguous()
    return named


def rotary_halves(weight: Tensor, heads: int) -> Tensor:
    """A projection (heads * D, dim) with the rows of each head in the order of Hugging Face's rotary embedding.

    llama2.c turns the neighbouring rows 2i and 2i + 1 of a head together, Hugging Face the rows i and i + D / 2.
    """
    rows, dim = weight.shape
    return weight.view(heads, rows // heads // 2, 2, dim).transpose(1, 2).reshape(rows, dim)


def read_pieces(path: Path) -> list[str]:
    """The vocabulary in the order of its ids. Raises SystemExit where it is not one of llama2.c's."""
    content = path.read_bytes()
    place, pieces = struct.calcsize("<i"), list[str]()
    while place < len(content):
        score, size = struct.unpack_from("<fi", content, place)
        place += struct.calcsize("<fi")
        piece = content[place : place + size].decode("utf-8")
        place += size
        if len(pieces) >= FIRST_PIECE and score != FIRST_PIECE - len(pieces):
            raise SystemExit(f"error: {path}: piece {len(pieces)} has the score {score}; merges must be in order.")
        pieces.append(piece if len(pieces) >= FIRST_PIECE else piece.strip())
    if tuple(pieces[: len(SPECIAL)]) != SPECIAL or pieces[FIRST_PIECE - 1] != "<0xFF>":
        raise SystemExit(f"error: {path} does not begin with {', '.join(SPECIAL)} and the 256 bytes.")
    return pieces


def build_tokenizer(pieces: Sequence[str]) -> Tokenizer:
    """A byte-pair tokenizer that merges as sentencepiece does: always the pair whose union comes first in `pieces`.

    A text gets a blank before it, and characters without a piece become bytes.
    """
    own = [piece.replace(" ", SPACE) for piece in pieces[FIRST_PIECE:]]
    known = set(own)
    splits = [(piece[:cut], piece[cut:]) for piece in own for cut in range(1, len(piece))]
    merges = [(left, right) for left, right in splits if left in known and right in known]
    vocabulary = {piece: n for n, piece in enumerate([*pieces[:FIRST_PIECE], *own])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token=UNKNOWN, fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A {BEGIN} $B", special_tokens=[(BEGIN, SPECIAL.index(BEGIN))]
    )
    return tokenizer


def convert(weights: Path, tokenizer: Path, output: Path) -> None:
    """Writes the folder: config.json, model.safetensors, tokenizer.json, their settings and the chat template."""
    header, tensors = read_weights(weights)
    pieces = read_pieces(tokenizer)
    if len(pieces) != abs(header.vocab_size):
        raise SystemExit(f"error: {tokenizer} has {len(pieces)} pieces, {weights} was made for {header.vocab_size}.")
    output.mkdir(parents=True, exist_ok=True)
    save_file(tensors, output / "model.safetensors", metadata={"format": "pt"})
    build_tokenizer(pieces).save(str(output / "tokenizer.json"))
    (output / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    begin, end = SPECIAL.index(BEGIN), SPECIAL.index(END)
    _write(output / "config.json", _configuration(header, begin, end))
    # A story ends where the model writes the <s> of the next one.
    _write(output / "generation_config.json", {"bos_token_id": begin, "eos_token_id": [begin, end]})
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": header.positions}
    special = {"bos_token": BEGIN, "eos_token": END, "unk_token": UNKNOWN, "pad_token": UNKNOWN}
    _write(output / "tokenizer_config.json", {**settings, **special, "clean_up_tokenization_spaces": False})


def _configuration(header: Header, begin: int, end: int) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": abs(header.vocab_size),
        "hidden_size": header.dim,
        "intermediate_size": header.hidden_dim,
        "num_hidden_layers": header.layers,
        "num_attention_heads": header.heads,
        "num_key_value_heads": header.kv_heads,
        "max_position_embeddings": header.positions,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": header.vocab_size > 0,
        "bos_token_id": begin,
        "eos_token_id": end,
        "pad_token_id": SPECIAL.index(UNKNOWN),
        "dtype": "float32",
    }


def _write(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Reads the command line and converts."""
    parser = reader("Write stories260K as a Llama folder.")
    for name, meaning in (
        ("weights", "stories260K.bin"),
        ("tokenizer", "tok512.bin"),
        ("output", "the folder to write"),
    ):
        parser.add_argument(f"--{name}", type=Path, required=True, help=meaning)
    given = parser.parse_args()
    for path in (given.weights, given.tokenizer):
        if not path.is_file():
            raise SystemExit(f"error: there is no file {path} (looked in {Path.cwd()}).")
    try:
        convert(given.weights, given.tokenizer, given.output)
    except (ArithmeticError, OSError, ValueError, struct.error) as error:
        raise SystemExit(f"error: these are not stories260K's files, or --output cannot be written: {error}") from None
    tell(f"wrote {given.output}")


if __name__ == "__main__":
    main()
