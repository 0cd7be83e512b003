"""Data sets as batches: loading, splits, tokenising, the built-in offline set."""

from textadv.data.classification import load_splits
from textadv.data.encoding import EncodedRows, Rows, encode
from textadv.data.examples import DataError, Examples, Splits, overlap
from textadv.data.images import ImageRows
from textadv.data.reviews import reviews
from textadv.data.tokenizer import reviews_tokenizer

__all__ = [
    "DataError",
    "EncodedRows",
    "Examples",
    "ImageRows",
    "Rows",
    "Splits",
    "encode",
    "load_splits",
    "overlap",
    "reviews",
    "reviews_tokenizer",
]
