"""Success at k answers: against every draw of k, what it estimates, over prompts and attacks, and what they take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

import pytest

from textadv.measuring.blocks import Grid, Lines, Picture, Text
from textadv.measuring.safety.adversaries import Direct
from textadv.measuring.safety.elicitation import BehaviourOutcome, Elicitation, JudgedAnswer
from textadv.measuring.safety.generate import Decoding
from textadv.measuring.safety.outcomes import counted, gravest
from textadv.measuring.safety.success_at import at_k, at_k_prompts, failures_of, samples_of
from textadv.measuring.sections.failures import AttackFailures, Failures
from textadv.measuring.sections.outcomes import AttackOutcomes
from textadv.measuring.sections.samples import SampledAttack, Samples
from textadv.measuring.statistics import share_of_rows, wilson
from textadv.values.flops import NONE_SPENT, NOT_MEASURED, Flops

SEARCH, ANSWER = Flops(700, 300, 0), Flops(50, 0, 0)


@pytest.mark.parametrize(("answers", "complied"), [(6, 2), (6, 0), (6, 6), (5, 1), (1, 1)])
def test_it_is_the_share_of_all_draws_that_hold_one_that_complied(answers: int, complied: int) -> None:
    each = [True] * complied + [False] * (answers - complied)
    for k in range(1, answers + 1):
        draws = list(combinations(each, k))
        assert at_k(answers, complied, k) == pytest.approx(sum(map(any, draws)) / len(draws))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_in_the_mean_over_what_n_answers_may_be_it_is_what_k_answers_are(share: float) -> None:
    answers = 12
    for k in (1, 5, 12):
        chances = [math.comb(answers, c) * share**c * (1 - share) ** (answers - c) for c in range(answers + 1)]
        mean = sum(chance * at_k(answers, c, k) for c, chance in enumerate(chances))
        assert mean == pytest.approx(1 - (1 - share) ** k)


def test_more_answers_than_there_are_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="1 <= k <= n, got n 3, c 1, k 4"):
        at_k(3, 1, 4)


def test_the_interval_is_wilsons_and_wider_than_it_has_to_be_for_shares() -> None:
    whole, half = share_of_rows([1.0, 0.0, 0.0, 1.0, 0.0]), share_of_rows([0.5, 0.3, 0.4, 0.5, 0.3])
    expected = wilson(2, 5)
    assert whole.value == half.value == 0.4
    assert whole[1:] == pytest.approx((expected.low, expected.high)) and half[1:] == pytest.approx(whole[1:])
    assert share_of_rows([0.0] * 4).low == 0.0 and share_of_rows([0.0] * 4).high == pytest.approx(wilson(0, 4).high)
    assert math.isnan(share_of_rows([]).value)
    with pytest.raises(ValueError, match="between 0 and 1"):
        share_of_rows([1.5])


# ---- attacks


def outcome(attack: str, row: int, prompts: Sequence[str], reached: bool | None = None) -> BehaviourOutcome:
    """prompts: for each a letter an answer: c complied, r refused; the first carries a search, where it is reached."""
    answers = tuple(
        JudgedAnswer(
            restart,
            sample,
            "ok",
            letter,
            3,
            "ok",
            letter == "c",
            None,
            "",
            key=f"{attack} {row} {restart} {sample}",
            reached=reached,
            search_flops=SEARCH if reached is not None and sample == 0 else NONE_SPENT,
            sampling_flops=ANSWER,
        )
        for restart, letters in enumerate(prompts)
        for sample, letter in enumerate(letters)
    )
    return BehaviourOutcome(row, attack, any(a.broken for a in answers), False, answers)


def found(*outcomes: BehaviourOutcome, temperature: float = 1.0) -> tuple[Elicitation, list[AttackOutcomes]]:
    """The answers and what became of them, attack by attack."""
    names = list(dict.fromkeys(one.attack for one in outcomes))
    told = []
    for name in names:
        each = [
            tuple("complied: on the subject" if a.broken else "refused: declines" for a in one.answers)
            for one in outcomes
            if one.attack == name
        ]
        behaviours = [gravest([answer.partition(":")[0] for answer in answers]) for answers in each]
        told.append(counted(name, behaviours, {}, answers=tuple(each)))
    decoding = Decoding(temperature=temperature)
    return Elicitation("judge", "1", decoding, 2, (), None, tuple(outcomes)), told  # type: ignore[arg-type]


def named(samples: Samples | None, name: str) -> SampledAttack:
    assert samples is not None
    return next(one for one in samples.attacks if one.attack == name)


def test_prompts_multiply_and_behaviours_are_averaged() -> None:
    answers = [outcome("search", 1, ["crrr", "ccrr"], False), outcome("search", 2, ["rrrr", "rrrr"], False)]
    one = named(samples_of(*found(*answers), (1, 2, 9)), "search")
    assert [point.k for point in one.points] == [1, 2, 4] and one.prompts == 2 and one.answers == (4, 4)
    first, second = one.at(1), one.at(2)
    assert first is not None and second is not None and one.at(9) is None
    assert first.rows == pytest.approx((1 - (3 / 4) * (2 / 4), 0.0)) and first.value == pytest.approx(0.3125)
    assert second.rows == pytest.approx((1 - (3 / 6) * (1 / 6), 0.0))
    # Two searches, and k answers to each prompt.
    assert (first.flops, second.flops) == (2 * 1000 + 2 * 50, 2 * 1000 + 4 * 50)
    whole = one.points[-1]
    assert whole.value == 0.5 and whole.rows == (), (
        "at all answers: any of them, and no row is kept that nobody asked for"
    )


def test_as_many_as_the_prompt_with_the_fewest_answers_has() -> None:
    answers = [outcome("direct", 1, ["crr"]), outcome("direct", 2, ["rrrrrr"])]
    one = named(samples_of(*found(*answers), (1, 3, 6)), "direct")
    assert one.answers == (3, 6) and [point.k for point in one.points] == [1, 2, 3]
    assert one.points[0].value == pytest.approx((1 / 3 + 0) / 2)


def test_the_worst_case_asks_every_prompt_once_and_shared_ones_no_second_time() -> None:
    direct, other = outcome("direct", 1, ["cr"]), outcome("other", 1, ["rc", "rr"])
    shared = BehaviourOutcome(1, "again", True, False, direct.answers)
    worst = named(samples_of(*found(direct, shared, other), (1,)), "worst case").points[0]
    assert worst.value == pytest.approx(1 - (1 / 2) * (1 / 2)) and worst.flops == 3 * 50


@dataclass(frozen=True)
class Spellings(Direct):
    """One request spelled anew in each round."""

    drawn: bool = True


def test_of_prompts_drawn_alike_k_are_answered() -> None:
    """Four spellings of which one complies are four draws, and no four prompts that are all asked at k = 1."""
    told = found(outcome("spellings", 1, ["c", "r", "r", "r"], False))
    pooled = named(samples_of(*told, (1, 2), attacks={"spellings": Spellings()}), "spellings")
    apart = named(samples_of(*told, (1, 2), attacks={"spellings": Spellings(drawn=False)}), "spellings")
    assert (pooled.prompts, pooled.answers, apart.prompts, apart.answers) == (4, (1, 1), 4, (1, 1))
    assert (pooled.drawn, apart.drawn, pooled.made) == (True, False, (4, 4))
    assert [(point.k, point.value, point.flops) for point in pooled.points] == [
        (1, pytest.approx(1 / 4), 1050),
        (2, pytest.approx(1 / 2), 2 * 1050),
        (4, 1.0, 4 * 1050),
    ]
    assert [(point.k, point.value, point.flops) for point in apart.points] == [(1, 1.0, 4 * 1050)]


def test_several_answers_to_one_of_the_prompts_drawn_alike_are_no_further_draws() -> None:
    """Half of the spellings always comply, the others never: two spellings hold one that does in 3 of 4 cases."""
    rates = []
    for letters in product("cr", repeat=3):
        told = found(outcome("spellings", 1, [3 * letter for letter in letters], False))
        one = named(samples_of(*told, (1, 2, 9), attacks={"spellings": Spellings()}), "spellings")
        assert (one.prompts, one.answers, one.made) == (3, (3, 3), (9, 9)) and one.at(9) is None
        points = (one.at(1), one.at(2))
        rates.append([point.value for point in points if point is not None])
        assert [point.flops for point in points if point is not None] == [1050, 2100]
    assert [sum(values) / len(rates) for values in zip(*rates, strict=True)] == pytest.approx([1 / 2, 3 / 4])


def test_it_is_the_share_of_all_draws_of_prompts_with_an_answer_to_each() -> None:
    prompts = ["crr", "r", "ccr", "c", "rrrr"]
    shares = [letters.count("c") / len(letters) for letters in prompts]
    for k in range(1, len(prompts) + 1):
        draws = [[product(*some), math.prod(map(len, some))] for some in combinations(prompts, k)]
        each = [sum("c" in letters for letters in told) / size for told, size in draws]
        assert at_k_prompts(shares, k) == pytest.approx(sum(each) / len(each)), k
    with pytest.raises(ValueError, match="1 <= k <= 5 prompts, got k 6"):
        at_k_prompts(shares, 6)


def test_in_the_worst_case_prompts_drawn_alike_count_where_the_first_of_them_is_the_request_itself() -> None:
    direct, spelled = outcome("direct", 1, ["r"]), outcome("spellings", 1, ["r", "c"])
    same = (replace(spelled.answers[0], key=direct.answers[0].key), spelled.answers[1])
    told = found(direct, BehaviourOutcome(1, "spellings", True, False, same))
    worst = named(samples_of(*told, (1,), attacks={"spellings": Spellings()}), "worst case")
    assert worst.prompts == 3 and worst.points[0].value == pytest.approx(1 / 2)
    alike = (same[0], replace(same[1], key=direct.answers[0].key))
    told = found(direct, BehaviourOutcome(1, "spellings", True, False, alike))
    worst = named(samples_of(*told, (1,), attacks={"spellings": Spellings()}), "worst case")
    assert worst.prompts == 1, "nothing was asked but the request"


def test_a_prompt_that_could_not_be_sent_complies_at_no_k_and_limits_none() -> None:
    sent, lost = outcome("search", 1, ["crr"], True), outcome("search", 2, ["r"], False)
    bare = replace(lost.answers[0], status="error", broken=None, sampling_flops=NONE_SPENT)
    told = found(sent, BehaviourOutcome(2, "search", False, True, (bare,)))
    one = named(samples_of(*told, (1, 3)), "search")
    assert [point.most for point in one.points] == pytest.approx([2 / 3, (2 / 3 + 1) / 2, 1.0])
    assert one.answers == (3, 3) and [point.k for point in one.points] == [1, 2, 3]
    assert one.points[0].rows == pytest.approx((1 / 3, 0.0)) and one.points[2].value == 0.5
    assert one.points[2].flops == ((1000 + 3 * 50) + 1000) / 2
    told = found(BehaviourOutcome(2, "search", False, True, (bare,)))
    assert [(point.k, point.value) for point in named(samples_of(*told, (1, 3)), "search").points] == [(1, 0.0)]


def test_answers_of_which_nothing_is_known_widen_what_is_told() -> None:
    """Two of four are not known: none of them complied in the estimate, both in its upper bound."""
    one = outcome("direct", 1, ["crrr"])
    half = replace(
        one, answers=(*one.answers[:2], *(replace(a, broken=None, verdict="error") for a in one.answers[2:]))
    )
    elicited, [told] = found(half, outcome("direct", 2, ["rrrr"]))
    became = (*told.answers[0][:2], *("unknown: not judged",) * 2)
    samples = samples_of(elicited, [replace(told, answers=(became, told.answers[1]))], (1, 2))
    point = named(samples, "direct").points[0]
    assert (point.value, point.most) == (pytest.approx(1 / 8), pytest.approx(3 / 8))
    assert (point.low, point.high) == (share_of_rows([1 / 4, 0]).low, share_of_rows([3 / 4, 0]).high)
    assert samples is not None
    (table,) = [block for block in Samples.blocks({"model": samples}) if isinstance(block, Grid)]
    assert table.rows[1][4].startswith("12.5 to 37.5 [")


def test_answers_that_short_ones_left_room_for_are_in_no_estimate() -> None:
    one = outcome("direct", 1, ["rrcc"])
    more = replace(one, answers=(*one.answers[:2], *(replace(answer, beyond=True) for answer in one.answers[2:])))
    direct = named(samples_of(*found(more), (1, 2, 3)), "direct")
    assert (direct.answers, direct.made) == ((2, 2), (4, 4)) and [
        (point.k, point.value) for point in direct.points
    ] == [(1, 0.0), (2, 0.0)]


@pytest.mark.parametrize("shares", [[0.0] * 9990 + [1.0] * 10, [0.0] * 1190 + [0.5] * 10])
def test_so_many_prompts_are_drawn_from_as_are_published(shares: list[float]) -> None:
    """arXiv:2412.03556 draws 10,000. Against the share of draws of 100 without any of the ten."""
    none = [math.comb(len(shares) - 10, 100 - hit) * math.comb(10, hit) for hit in range(11)]
    left = sum(ways * (1 - max(shares)) ** hit for hit, ways in enumerate(none) if ways) if max(shares) < 1 else none[0]
    assert at_k_prompts(shares, 100) == pytest.approx(1 - left / math.comb(len(shares), 100))


def test_what_is_not_measured_is_not_said_to_take_nothing() -> None:
    one = outcome("direct", 1, ["cr"])
    bare = BehaviourOutcome(1, "direct", True, False, tuple(_bare(answer) for answer in one.answers))
    point = named(samples_of(*found(bare), (1,)), "direct").points[0]
    assert point.flops is None and point.value == 0.5
    samples = samples_of(*found(bare), (1,))
    assert samples is not None
    (table,) = [block for block in Samples.blocks({"model": samples}) if isinstance(block, Grid)]
    assert table.rows[1][-1].endswith(", not measured")


def _bare(answer: JudgedAnswer) -> JudgedAnswer:
    return JudgedAnswer(**{**vars(answer), "sampling_flops": NOT_MEASURED})


def test_the_section_has_table_curve_and_what_is_missing() -> None:
    answers = [outcome("direct", 1, ["crrrr"]), outcome("direct", 2, ["rrrrr"])]
    samples = samples_of(*found(*answers), (1, 10))
    greedy = samples_of(*found(outcome("direct", 1, ["c"]), temperature=0.0), (1, 10))
    assert samples is not None and greedy is not None
    blocks = Samples.blocks({"model": samples})
    (table,) = [block for block in blocks if isinstance(block, Grid)]
    assert table.rows[:2] == [
        ["model", "attack", "prompts", "answers to each", "k = 1: %, FLOPs"],
        # Wilson's of 0.2 of 2: (0.1 + z^2/4 +- z sqrt(0.1 0.9/2 + z^2/16)) / (1 + z^2/2).
        ["model", "direct", "1", "5", "10.0 [0.5, 72.1], 5.00e+01"],
    ]
    pictures = [block for block in blocks if isinstance(block, Picture)]
    assert [picture.title for picture in pictures] == ["Success over FLOPs: direct", "Success over FLOPs: worst case"]
    plot = pictures[0].plot
    assert isinstance(plot, Lines)
    assert plot.series[0].places == tuple(math.log10(k * 50) for k in (1, 2, 5)) and plot.first == 1
    assert [rate.value for rate in plot.series[0].rates] == pytest.approx([0.1, 0.2, 0.5])
    told = " ".join(block.text for block in blocks if isinstance(block, Text))
    assert "k = 10 of evaluation.success_at is left out" in told and "Raise evaluation.samples." in told
    told = " ".join(block.text for block in Samples.blocks({"model": greedy}) if isinstance(block, Text))
    assert "with evaluation.temperature above 0" in told and not any(
        isinstance(block, Picture) for block in Samples.blocks({"model": greedy})
    )


def test_it_is_said_of_how_many_answers_any_counts_and_which_attack_has_too_few() -> None:
    answers = [outcome("direct", 1, ["crrrr"]), outcome("direct", 2, ["rrr"]), outcome("search", 1, ["rr"])]
    samples = samples_of(*found(*answers, outcome("search", 2, ["rr"])), (1, 3), budget=10**6)
    assert samples is not None
    assert [samples.in_any(name) for name in ("direct", "search", "worst case", "another")] == [
        " in any of 3 to 5 answers",
        " in any of 2 answers",
        " in any of 5 to 7 answers",
        "",
    ]
    told = " ".join(block.text for block in Samples.blocks({"model": samples}) if isinstance(block, Text))
    assert "k = 3: for search, worst case the budget surely holds fewer answers" in told
    assert "With evaluation.samples: 3 each prompt has so many" in told and "takes 3 draws" not in told
    few = replace(samples, attacks=tuple(replace(one, drawn=one.attack == "search") for one in samples.attacks))
    told = " ".join(block.text for block in Samples.blocks({"model": few}) if isinstance(block, Text))
    assert "Prompts of search are drawn alike, with one answer to each at least: k = 3 takes 3 draws" in told
    assert "evaluation.samples" not in told, "it would change nothing for them"
    cold = replace(samples, temperature=0.0, at=(1, 3, 900))
    told = " ".join(block.text for block in Samples.blocks({"model": cold}) if isinstance(block, Text))
    assert (
        "k = 3: search, worst case have fewer answers to some prompt." in told and "With evaluation.samples" not in told
    )
    assert "k = 900 of evaluation.success_at is left out: no prompt has so many answers." in told
    single = samples_of(*found(outcome("direct", 1, ["c"]), outcome("search", 1, ["r"])), (1,))
    assert single is not None and single.in_any("worst case") == ""


def test_a_failure_says_whether_the_search_missed_or_the_model_refused() -> None:
    answers = [
        outcome("search", 1, ["c"], True),
        outcome("search", 2, ["r"], True),
        outcome("search", 3, ["r"], False),
        outcome("search", 4, ["r"]),
        outcome("direct", 1, ["r"]),
    ]
    failures = failures_of(*found(*answers))
    assert failures == (
        AttackFailures("search", missed=1, refused=1, otherwise=0, aimless=1),
        AttackFailures("direct", missed=0, refused=0, otherwise=0, aimless=1),
    )
    section = Failures.of(failures)
    assert section is not None
    (table,) = [block for block in Failures.blocks({"model": section}) if isinstance(block, Grid)]
    assert table.rows[1:] == [["model", "search", "3", "1", "1", "0", "1"]]
