"""Attacks by their names in the literature, with the published settings; where they leave them is stated.

A name is no identity: the same name stands for other constraints in every harness. What was run is told by
`EditAttack.identity`.
"""

from __future__ import annotations

from textadv.attacks.edits.attack import EditAttack
from textadv.attacks.edits.beam import Beam
from textadv.attacks.edits.characters import Letter
from textadv.attacks.edits.constraints import (
    ChangedWords,
    EditDistance,
    LongWords,
    NotStopWords,
    NotTwice,
    Similarity,
)
from textadv.attacks.edits.goals import Reduce
from textadv.attacks.edits.greedy import Greedy
from textadv.attacks.edits.parts import Constraint
from textadv.attacks.edits.population import Genetic
from textadv.attacks.edits.replacing import (
    AnyOf,
    DeleteWord,
    GradientWords,
    MaskedWords,
    OwnNeighbours,
    Synonyms,
)
from textadv.attacks.edits.synonyms import WordTable
from textadv.models.reading_models import MaskedModel, TextEncoder

ONCE: tuple[Constraint, ...] = (NotTwice(), NotStopWords())


def deepwordbug(*, queries: int | None = None, seed: int = 0) -> EditAttack:
    """One letter of the most important words swapped, substituted, deleted or inserted, within an edit distance of 30
    (arXiv:1801.04354).

    Deviations: words are scored by what the unknown word in their place does, which the paper calls Replace-1, not by
    the temporal head and tail of recurrent models; each word tries all four edits, one drawn of each, where the paper
    has one kind per attack; stop words are left alone, as in TextAttack.
    """
    return EditAttack(
        AnyOf((Letter("swap"), Letter("substitute"), Letter("delete"), Letter("insert"))),
        Greedy("unk"),
        (*ONCE, EditDistance(30)),
        queries=queries,
        seed=seed,
        name="deepwordbug",
    )


def pruthi(*, words: int = 1, queries: int | None = None, seed: int = 0) -> EditAttack:
    """`words` words of four letters or more get a swap, a deletion, an insertion or a wrong key inside, the best of all
    (arXiv:1905.11268).

    Deviations: of an insertion one letter is drawn for each place, and of a wrong key one neighbour, where the paper
    tries all; stop words are left alone.
    """
    return EditAttack(
        AnyOf(tuple(Letter(kind, "places", inner=True) for kind in ("swap", "delete", "insert", "keyboard"))),
        Beam(1, steps=words),
        (*ONCE, LongWords(4), ChangedWords(most=words)),
        queries=queries,
        seed=seed,
        name="pruthi",
    )


def textbugger(
    table: WordTable | None = None, encoder: TextEncoder | None = None, *, queries: int | None = None, seed: int = 0
) -> EditAttack:
    """The most important words get a space (below 6 letters), a deletion or a swap (above 4) inside, a look-alike
    letter or one of five near words (arXiv:1812.05271, the black-box attack).

    table: near words; None takes the nearest of the attacked model's own embeddings. encoder: what holds the texts
    similar, by a cosine of 0.8; None leaves that out.

    Deviations: words are scored by leaving them out of the whole text, where the paper scores sentences first; near
    words come from the table or the model, where the paper has GloVe; the encoder is the given one, where the paper has
    the Universal Sentence Encoder; stop words are left alone.
    """
    near = OwnNeighbours(5) if table is None else Synonyms(table, 5)
    return EditAttack(
        AnyOf(
            (
                Letter("space", inner=True, longest=5),
                Letter("delete", inner=True),
                Letter("swap", inner=True, shortest=5),
                Letter("homoglyph"),
                near,
            )
        ),
        Greedy("delete"),
        (*ONCE, *(() if encoder is None else (Similarity(encoder, 0.8),))),
        queries=queries,
        seed=seed,
        name="textbugger",
    )


def bad_characters(*, perturbations: int = 1, queries: int | None = None, seed: int = 0) -> EditAttack:
    """Up to `perturbations` words with an edit that readers do not see: a look-alike, a sign without width, two letters
    reordered, a deleted letter (arXiv:2106.09898).

    Deviations: the search is genetic, of the paper's 32 individuals and 10 generations, where the paper has
    differential evolution: a mutation edits a word anew or moves an edit to another word, both at random, where the
    paper adds the difference of two individuals; the budget counts words and a word has one edit; all four kinds are
    tried at once, where the paper has one kind per attack.
    """
    return EditAttack(
        AnyOf((Letter("homoglyph"), Letter("invisible"), Letter("reorder"), Letter("backspace"))),
        Genetic(32, 10),
        (NotTwice(), ChangedWords(most=perturbations)),
        queries=queries,
        seed=seed,
        name="bad_characters",
    )


def textfooler(
    table: WordTable, encoder: TextEncoder | None = None, *, queries: int | None = None, seed: int = 0
) -> EditAttack:
    """The most important words replaced by one of 50 synonyms, texts within 0.840845 of angular similarity in a window
    of 15 words (arXiv:1907.11932; the figure is that of its code, as is 0.1 for texts of fewer words).

    encoder: what holds the texts similar; None leaves that out.

    Deviations: synonyms come from the table, in its order, where the paper takes the 50 nearest counter-fitted vectors
    with a cosine of at least 0.5 (0.7 in the text); parts of speech are not compared; of all candidates that break the
    row the one with the highest margin is returned, where the paper takes the most similar; a text is compared with the
    original, around the first to the last change, where its code compares with the text as substituted so far, around
    the word in turn; the encoder is the given one, where the paper has the Universal Sentence Encoder.
    """
    similar = () if encoder is None else (Similarity(encoder, 0.840845057, window=15, angular=True, least_short=0.1),)
    return EditAttack(
        Synonyms(table, 50), Greedy("delete"), (*ONCE, *similar), queries=queries, seed=seed, name="textfooler"
    )


def pwws(table: WordTable, *, queries: int | None = None, seed: int = 0) -> EditAttack:
    """Words replaced by WordNet synonyms in the order of saliency times gain (ACL 2019, P19-1103).

    table: `read_wordnet(folder)`.

    Deviations: named entities are not exchanged; parts of speech are not compared; gains are of margins of logits,
    where the paper has probabilities; a word's substitute is chosen again on the text as substituted so far, where the
    paper keeps the one that it chose on the original; it is put in only where it raises the margin, where the paper
    puts in every one; stop words are left alone.
    """
    return EditAttack(Synonyms(table), Greedy("weighted"), ONCE, queries=queries, seed=seed, name="pwws")


def bae(
    model: MaskedModel, encoder: TextEncoder | None = None, *, queries: int | None = None, seed: int = 0
) -> EditAttack:
    """The most important words replaced by what a masked language model finds likely there, 50 words of it (BAE-R,
    arXiv:2004.01970).

    encoder: what holds the texts similar, by 0.936338 in a window of 15 words (0.1 for texts of fewer words, as in
        TextFooler's code, which its own is made from); None leaves that out.

    Deviations: parts of speech are not compared; of all candidates that break the row the one with the highest margin
    is returned, where the paper takes the most similar; the encoder is the given one, where the paper has the Universal
    Sentence Encoder; stop words are left alone; pieces of words are no candidates.
    """
    similar = () if encoder is None else (Similarity(encoder, 0.936338023, window=15, least_short=0.1),)
    return EditAttack(
        MaskedWords(model, 50), Greedy("delete"), (*ONCE, *similar), queries=queries, seed=seed, name="bae"
    )


def hotflip(*, words: int = 2, queries: int | None = None, seed: int = 0) -> EditAttack:
    """Up to `words` words flipped to the token that to first order raises the loss most, by a beam of 10 texts
    (arXiv:1712.06751, flips of words).

    Deviations: a flip need not be near in meaning, where the paper asks for a cosine of 0.8 and the same part of
    speech; stop words are left alone; gradients are those of the margin.
    """
    return EditAttack(
        GradientWords(1),
        Beam(10, steps=words),
        (*ONCE, ChangedWords(most=words)),
        queries=queries,
        seed=seed,
        name="hotflip",
    )


def input_reduction(*, queries: int | None = None, seed: int = 0) -> EditAttack:
    """The least words at which the model says the same, by a beam of 5 texts (arXiv:1804.07781).

    Deviations: which word goes is decided by the model's own answer without it, where the paper ranks by gradients.
    """
    return EditAttack(DeleteWord(), Beam(5), (), Reduce(), queries=queries, seed=seed, name="input_reduction")
