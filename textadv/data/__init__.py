"""Data sets as batches: loading, splits, tokenising, images, the built-in offline sets."""

from textadv.data.chat import Chat, ChatSplits, load_chats
from textadv.data.chat_rows import ChatRows, JoinedRows, encode_chats, joined
from textadv.data.chat_template import Encoded, Segment, encode_answer, encode_answered, encode_prompt
from textadv.data.classification import load_splits
from textadv.data.contamination import Contamination, find_contamination
from textadv.data.encoding import (
    EncodedRows,
    Rows,
    encode,
    length_warning,
    require_labelled,
    require_rows,
    spelled_warning,
    split_remedy,
    unknown_warning,
)
from textadv.data.examples import Examples, Splits, overlap
from textadv.data.image_files import ImageSplits, Pictures
from textadv.data.image_splits import (
    Fitting,
    ImageParts,
    fitted,
    images_digest,
    load_image_splits,
    own_shape,
    shared_images,
)
from textadv.data.images import ImageRows
from textadv.data.numbers import class_numbers, from_numpy
from textadv.data.rendering import Message, Template
from textadv.data.reviews import reviews
from textadv.data.shapes import shapes
from textadv.data.tokenizer import reviews_tokenizer
from textadv.values.errors import DataError

__all__ = [
    "Chat",
    "ChatRows",
    "ChatSplits",
    "Contamination",
    "DataError",
    "Encoded",
    "EncodedRows",
    "Examples",
    "Fitting",
    "ImageParts",
    "ImageRows",
    "ImageSplits",
    "JoinedRows",
    "Message",
    "Pictures",
    "Rows",
    "Segment",
    "Splits",
    "Template",
    "class_numbers",
    "encode",
    "encode_answer",
    "encode_answered",
    "encode_chats",
    "encode_prompt",
    "find_contamination",
    "fitted",
    "from_numpy",
    "images_digest",
    "joined",
    "length_warning",
    "load_chats",
    "load_image_splits",
    "load_splits",
    "overlap",
    "own_shape",
    "require_labelled",
    "require_rows",
    "reviews",
    "reviews_tokenizer",
    "shapes",
    "shared_images",
    "spelled_warning",
    "split_remedy",
    "unknown_warning",
]
