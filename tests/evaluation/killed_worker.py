"""Evaluates a small model batch by batch and dies in the middle, without any clean-up.

    python killed_worker.py FOLDER BATCHES

FOLDER is where finished rows are kept; the process ends with status 9 when it begins the batch after BATCHES.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from tests.evaluation.test_finished import measured
from textadv.measuring.accuracy import attacking


def main() -> None:
    """Ends the process at the wanted batch."""
    folder, last = Path(sys.argv[1]), int(sys.argv[2])
    attacked, begun = attacking._attacked, []

    def mortal(*arguments: Any) -> Any:
        if arguments[2]:
            if len(begun) == last:
                os._exit(9)
            begun.append(arguments[2])
        return attacked(*arguments)

    attacking._attacked = mortal
    measured(folder)


if __name__ == "__main__":
    main()
