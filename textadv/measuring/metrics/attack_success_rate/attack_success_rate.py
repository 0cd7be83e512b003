"""Attack success rate as an `evaluate` metric.

`evaluate.load` copies this file elsewhere and finds what it needs by reading its import lines: one import per line, and
absolute ones only.
"""

from __future__ import annotations

import datasets
import evaluate

from textadv.measuring.statistics import wilson

DESCRIPTION = """
Share of the rows that were right without an attack and are wrong under it. Rows that were wrong from the start are no
success of the attack and are left out of both count and total.
"""

INPUTS = """
predictions: class id predicted under attack, one per row.
references: true class id, one per row.
clean_predictions: class id predicted without an attack, one per row.

Returns a dict: rate in 0..1 (nan when no row was right without the attack), low and high (95 % Wilson interval), count
(rows broken), total (rows right without the attack).
"""

CITATION = """
@inproceedings{morris2020textattack,
  title={TextAttack: A Framework for Adversarial Attacks, Data Augmentation, and Adversarial Training in NLP},
  author={Morris, John and Lifland, Eli and Yoo, Jin Yong and Grigsby, Jake and Jin, Di and Qi, Yanjun},
  booktitle={Proceedings of EMNLP: System Demonstrations},
  year={2020},
  note={arXiv:2005.05909}
}
"""


class AttackSuccessRate(evaluate.Metric):
    """Share of rows broken, of those right before: `compute(predictions=, references=, clean_predictions=)`.

    Morris et al., arXiv:2005.05909.
    """

    def _info(self) -> evaluate.MetricInfo:
        columns = ("predictions", "references", "clean_predictions")
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({column: datasets.Value("int64") for column in columns}),
        )

    def _compute(self, predictions: list[int], references: list[int], clean_predictions: list[int]) -> dict[str, float]:
        rows = zip(predictions, references, clean_predictions, strict=True)
        broken = [guess != label for guess, label, clean in rows if clean == label]
        rate = wilson(sum(broken), len(broken))
        return {"rate": rate.value, **vars(rate)}
