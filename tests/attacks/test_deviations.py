"""Every public attack says what it does otherwise than its paper, and has a test that works the paper's step out."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from tests.support.public import public_attacks
from textadv import attacks
from textadv.attacks import ensemble

HERE = Path(__file__).parent
# The class of an attack that follows a paper -> the test that works its formula, or its algorithm, out by hand.
BY_HAND = {
    "AdaptiveRadius": "test_curriculum.test_margin_2_at_4_per_radius_is_half_a_radius",
    "Apgd": "test_apgd.test_every_point_is_the_one_of_the_papers_algorithm",
    "AutoAttack": "test_autoattack.test_the_stages_and_budgets_are_those_of_the_paper",
    "CarliniWagner": "test_hinge.test_one_search_step_takes_the_steps_of_torchs_adam",
    "CarliniWagnerL0": "test_carlini_wagner.test_l0_of_pixels_is_the_fewest_or_one_more",
    "CarliniWagnerLinf": "test_carlini_wagner.test_linf_of_pixels_and_of_embeddings_per_token_or_example",
    "Ddn": "test_formulas.test_ddn_scales_the_norm_by_whether_the_row_is_broken",
    "DeepFool": "test_deepfool.test_one_step_to_the_boundary_of_two_classes",
    "Eot": "test_randomised.test_gradients_of_different_passes_are_weighed_by_their_length",
    "Fab": "test_fab.test_the_second_step_worked_by_hand",
    "GradientAttack": "test_formulas.test_pgd_is_the_sign_or_the_unit_gradient_and_a_projection",
    "Held": "test_held.test_it_searches_at_multiples_and_hands_out_the_same_delta_in_between",
    "Pdgd": "test_formulas.test_pdgd_descends_by_adam_while_the_multiplier_ascends",
    "PenalisedAscent": "test_penalty.test_on_a_linear_goal_it_is_the_gradient_over_twice_the_penalty",
    "RefusalDirection": "test_direction.test_every_layer_has_its_own_direction_from_the_unpadded_prompts",
    "Square": "test_formulas.test_square_in_l2_starts_on_tiles_and_moves_the_mass_of_windows",
    "Transfer": "test_transfer.test_onto_the_same_model_it_is_the_attack_itself",
    "VirtualAdversarial": "test_formulas.test_the_virtual_adversarial_direction_is_a_power_iteration",
}
OWN = {"Foreign", "MinimumRadius", "Noise", "Stages", "WorstOf", "Then", "Repeat", "Within"}


def documented() -> dict[str, str]:
    """Public name -> docstring, and those of the classes that only functions make."""
    found = {name: inspect.getdoc(getattr(attacks, name)) or "" for name in public_attacks()}
    return found | {one.__name__: one.__doc__ or "" for one in (ensemble.WorstOf, ensemble.Then, ensemble.Repeat)}


@pytest.mark.parametrize("name", sorted(documented()))
def test_it_says_what_it_does_otherwise(name: str) -> None:
    told = re.search(r"Deviations[^:]*: \S", documented()[name])
    assert told is not None, f"{name} has no line that begins with Deviations:"


def test_each_that_follows_a_paper_has_a_test_of_its_formula() -> None:
    classes = set(public_attacks().values())
    assert classes == set(BY_HAND) | OWN and not OWN & set(BY_HAND)
    for place in BY_HAND.values():
        file, name = place.split(".")
        assert f"def {name}(" in (HERE / f"{file}.py").read_text(encoding="utf-8"), place
    texts = documented()
    assert all("follows no paper" in texts[name] for name in OWN)
