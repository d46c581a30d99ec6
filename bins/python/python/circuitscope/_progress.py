"""Where long work is, as bars."""

from __future__ import annotations

import sys
import time
import warnings
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Optional, Union

from ._circuitscope import Error

#: ``None``: bars where somebody can see them and tqdm is installed; ``True``: bars; ``False``: nothing; or what is called with
#: the name of a stage, the steps that are done and the steps in all.
Progress = Union[None, bool, Callable[[str, int, int], Any]]

#: Work shorter than this, in seconds, is over before a bar could be read.
PATIENCE = 1.0


@contextmanager
def callback(progress: Progress) -> Iterator[Optional[Callable[[str, int, int], Any]]]:
    """What the work calls."""
    if progress is False:
        yield None
        return
    if callable(progress):
        yield progress
        return
    if progress is not None and progress is not True:
        raise Error(
            f"progress: found {type(progress).__name__}, expected None, True, False or what is called with stage, done and total"
        )
    bars = _Bars(forced=progress is True)
    try:
        yield bars if bars.shown else None
    finally:
        bars.close()


def _seen() -> bool:
    if "IPython" in sys.modules:
        from IPython import get_ipython

        if get_ipython() is not None:
            return True
    return bool(sys.stderr and sys.stderr.isatty())


class _Bars:
    def __init__(self, forced: bool) -> None:
        self.bar: Any = None
        self.stage = ""
        self.start = time.monotonic()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that widgets are missing, where bars are text
                from tqdm.auto import tqdm
        except ImportError:
            if forced:
                raise ImportError("progress=True needs tqdm: pip install tqdm") from None
            self.shown = False
            return
        self.tqdm = tqdm
        self.shown = forced or _seen()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if time.monotonic() - self.start < PATIENCE:
            return
        if self.bar is None or stage != self.stage:
            self.close()
            self.stage = stage
            self.bar = self.tqdm(total=total or None, desc=stage, leave=False)
        self.bar.total = total or None
        self.bar.n = done
        self.bar.refresh()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
