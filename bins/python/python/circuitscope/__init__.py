"""Find the attention heads that implement a behaviour, and see how far to trust the answer.

    >>> import circuitscope as cs
    >>> report = cs.discover("reference", task="induction")
    >>> "L2H5" in report.circuit
    True

What other tools captured is scored without a model: :func:`score` takes numpy arrays, torch tensors and anything else with
``__array__`` or ``__dlpack__``.
"""

from ._api import (
    capture,
    discover,
    evaluate,
    load_model,
    methods,
    score,
    score_codes,
    settings,
)
from ._circuitscope import Error, Model, __version__
from ._results import Captured, CodeScores, Evaluation, Report, Scores

__all__ = [
    "Captured",
    "CodeScores",
    "Error",
    "Evaluation",
    "Model",
    "Report",
    "Scores",
    "__version__",
    "capture",
    "discover",
    "evaluate",
    "load_model",
    "methods",
    "score",
    "score_codes",
    "settings",
]
