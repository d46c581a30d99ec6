"""Arrays of any library as numpy arrays, without a copy where none is needed."""

from __future__ import annotations

import json
import os
from typing import Any, Iterable

import numpy as np

from ._circuitscope import Error


def as_numpy(given: Any, name: str) -> np.ndarray:
    """The values of ``given`` where they lie, if numpy can see them there.

    A tensor that requires a gradient is detached, one on another device is copied to the CPU, and bfloat16, which numpy does
    not have, becomes float32.
    """
    if isinstance(given, np.ma.MaskedArray) and np.ma.is_masked(given):
        raise Error(f"{name}: found a mask, expected values everywhere; leave out what is masked")
    if isinstance(given, np.ndarray):
        return np.asarray(given)
    for step in ("detach", "cpu"):
        if callable(getattr(given, step, None)):
            given = getattr(given, step)()
    if "bfloat16" in str(getattr(given, "dtype", "")) and callable(getattr(given, "float", None)):
        given = given.float()
    try:
        if hasattr(given, "__dlpack__"):
            try:
                return np.from_dlpack(given)
            except (BufferError, RuntimeError, TypeError) as error:
                if not hasattr(given, "__array__"):
                    raise Error(f"{name}: found {type(given).__name__}, which numpy cannot read: {error}") from error
        return np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise Error(
            f"{name}: found {type(given).__name__}, expected an array: {error}"
        ) from error


def floats(given: Any, name: str) -> np.ndarray:
    """As float32: the array itself where it is that already."""
    array = as_numpy(given, name)
    if array.dtype.kind not in "fiub":
        raise Error(f"{name}: found values of type {array.dtype}, expected numbers")
    with np.errstate(over="ignore"):
        found = array.astype(np.float32, copy=False)
    if array.dtype.itemsize > 4 and array.dtype.kind == "f":
        beyond = np.argwhere(np.isinf(found) & np.isfinite(array))
        if len(beyond):
            at = tuple(int(index) for index in beyond[0])
            raise Error(f"{name}{list(at)}: found {array[at]}, expected a number that float32 has")
    return found


def labels(given: Any) -> np.ndarray:
    """One boolean for each example, true for those that show the behaviour."""
    array = as_numpy(given, "labels")
    if array.ndim != 1:
        raise Error(f"labels: found shape {list(array.shape)}, expected [example]")
    if array.dtype.kind == "b":
        return np.ascontiguousarray(array)
    if array.dtype.kind not in "fiu":
        raise Error(f"labels: found values of type {array.dtype}, expected booleans, or 0 and 1")
    wrong = np.flatnonzero((array != 0) & (array != 1))
    if wrong.size:
        at = int(wrong[0])
        raise Error(f"labels[{at}]: found {array[at]}, expected 0 or 1")
    return np.ascontiguousarray(array == 1)


def codes(given: Any) -> np.ndarray:
    """As int32."""
    array = as_numpy(given, "codes")
    if array.dtype.kind not in "iu":
        raise Error(f"codes: found values of type {array.dtype}, expected whole numbers")
    if array.size and (array.min() < -1 or array.max() > np.iinfo(np.int32).max):
        raise Error(
            f"codes: found {array.min()} to {array.max()}, expected -1 (no feature is active) or the number of a feature"
        )
    return array.astype(np.int32, copy=False)


def pairs(given: Any) -> dict[str, Any]:
    """A file of pairs, or pairs as lines of JSON."""
    if isinstance(given, (str, os.PathLike)):
        return {"pairs_file": os.fspath(given)}
    if callable(getattr(given, "to_dict", None)) and hasattr(given, "columns"):
        # What pandas has for a cell without a value.
        rows = given.to_dict("records")
        given = [{name: value for name, value in row.items() if not _missing(value)} for row in rows]
    lines = []
    for at, pair in enumerate(items(given, "pairs", "pairs of prompts")):
        if isinstance(pair, (tuple, list, np.ndarray)) and len(pair) == 2:
            pair = {"positive": pair[0], "negative": pair[1]}
        if not isinstance(pair, dict):
            raise Error(
                f"pairs[{at}]: found {type(pair).__name__}, expected (positive, negative), or a dict of `positive`, `negative` "
                "and what else is known of the pair"
            )
        fields = [f"{json.dumps(str(name))}: {dumps(f'pairs[{at}], {name}', value)}" for name, value in pair.items()]
        lines.append("{" + ", ".join(fields) + "}")
    if not lines:
        raise Error("pairs: found none, expected at least one")
    return {"pairs": "\n".join(lines)}


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value) or type(value).__name__ == "NAType"


def rows(given: Any) -> list[list[int]]:
    """Rows of matched examples, positive and negative."""
    array = as_numpy(given if hasattr(given, "__array__") else items(given, "pairs", "rows"), "pairs")
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu":
        raise Error(
            f"pairs: found shape {list(array.shape)} of {array.dtype}, expected rows (positive, negative) of whole numbers"
        )
    return array.tolist()


def items(given: Any, name: str, expected: str) -> list[Any]:
    """What a list holds, or anything else that can be gone through."""
    if isinstance(given, (str, bytes, dict)) or not hasattr(given, "__iter__"):
        raise Error(f"{name}: found {type(given).__name__}, expected a list of {expected}")
    return list(given)


#: What :func:`to_json` raises of values that JSON does not have.
UNFIT = (TypeError, ValueError, RecursionError)


def to_json(value: Any) -> str:
    """As JSON in UTF-8, which has neither NaN nor halves of surrogate pairs."""
    text = json.dumps(value, default=plain, allow_nan=False, ensure_ascii=False)
    text.encode()
    return text


def dumps(name: str, value: Any) -> str:
    """An argument as JSON."""
    try:
        return to_json(value)
    except Error as error:
        raise Error(f"{name}: {error}") from None
    except UnicodeEncodeError:
        raise Error(f"{name}: found half of a surrogate pair, expected text") from None
    except UNFIT:
        raise Error(f"{name}: found {value!r:.60}, expected finite numbers, text, or lists of them") from None


def plain(value: Any) -> Any:
    """numpy's numbers as Python's, and paths as text, for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise Error(f"found {type(value).__name__}, expected text, a number, or a list of them")


def path(given: Any, name: str) -> str:
    """The path of a file or folder."""
    try:
        found = os.fspath(given)
    except TypeError:
        found = None
    if not isinstance(found, str) or not found:
        what = "an empty text" if found == "" else type(given).__name__
        raise Error(f"{name}: found {what}, expected a path or a name")
    return found


def paths(given: Any, name: str, expected: str) -> list[str]:
    """One path or several."""
    several = [given] if isinstance(given, (str, os.PathLike)) else given
    return [path(one, name) for one in items(several, name, expected)]


def texts(given: Iterable[str], name: str) -> list[str]:
    """A list of texts."""
    found = items(given, name, "texts")
    for at, text in enumerate(found):
        if not isinstance(text, str):
            raise Error(f"{name}[{at}]: found {type(text).__name__}, expected text")
        dumps(f"{name}[{at}]", text)
    return found
