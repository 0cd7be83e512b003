"""Robust accuracy as an `evaluate` metric.

`evaluate.load` copies this file elsewhere and finds what it needs by reading its import lines: one import per line, and
absolute ones only.
"""

from __future__ import annotations

import datasets
import evaluate

from textadv.measuring.statistics import wilson

DESCRIPTION = """
Share of all rows that are classified right under attack. Rows that were wrong without the attack count as not robust,
so give them their wrong prediction. For the worst case over several attacks give, per row, the prediction under the
attack that broke it.
"""

INPUTS = """
predictions: class id predicted under attack, one per row.
references: true class id, one per row.

Returns a dict: rate in 0..1 (nan without rows), low and high (95 % Wilson interval), count (rows still right), total
(all rows).
"""

CITATION = """
@inproceedings{madry2018towards,
  title={Towards Deep Learning Models Resistant to Adversarial Attacks},
  author={Madry, Aleksander and Makelov, Aleksandar and Schmidt, Ludwig and Tsipras, Dimitris and Vladu, Adrian},
  booktitle={International Conference on Learning Representations},
  year={2018},
  note={arXiv:1706.06083}
}
"""


class RobustAccuracy(evaluate.Metric):
    """Share of rows right under attack: `compute(predictions=, references=)`.

    Madry et al., arXiv:1706.06083.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        right = sum(int(guess == label) for guess, label in zip(predictions, references, strict=True))
        rate = wilson(right, len(references))
        return {"rate": rate.value, **vars(rate)}
