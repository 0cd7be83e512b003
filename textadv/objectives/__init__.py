"""Objectives: what training minimises on the rows that are attacked."""

from textadv.objectives.free import FreeLB
from textadv.objectives.regularised import Consistency, Regularised, alum, r3f, smart, trades
from textadv.objectives.standard import Adversarial
from textadv.objectives.terms import Moment, Objective, Term, clean_terms

__all__ = [
    "Adversarial",
    "Consistency",
    "FreeLB",
    "Moment",
    "Objective",
    "Regularised",
    "Term",
    "alum",
    "clean_terms",
    "r3f",
    "smart",
    "trades",
]
