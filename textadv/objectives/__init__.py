"""Objectives: what training minimises on the rows that are attacked."""

from textadv.objectives.distributional import Distributional
from textadv.objectives.free import Carried, Free, FreeLB
from textadv.objectives.margin_aware import Mart
from textadv.objectives.memory import memory_of
from textadv.objectives.predictor import PredictorConsistency, with_predictor
from textadv.objectives.proximal import Proximal
from textadv.objectives.regularised import Consistency, Regularised, alum, r3f, smart, trades
from textadv.objectives.standard import Adversarial
from textadv.objectives.terms import Clean, Moment, Objective, Objectives, Term, hardening
from textadv.objectives.weights import WeightPerturbation

__all__ = [
    "Adversarial",
    "Carried",
    "Clean",
    "Consistency",
    "Distributional",
    "Free",
    "FreeLB",
    "Mart",
    "Moment",
    "Objective",
    "Objectives",
    "PredictorConsistency",
    "Proximal",
    "Regularised",
    "Term",
    "WeightPerturbation",
    "alum",
    "hardening",
    "memory_of",
    "r3f",
    "smart",
    "trades",
    "with_predictor",
]
