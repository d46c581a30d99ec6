"""What users call. Names and defaults are those of the program's options."""

from __future__ import annotations

import inspect
import json
import os
from typing import Any, Iterable, Mapping, Optional, Sequence, Union

import numpy as np

from . import _arrays, _circuitscope
from ._circuitscope import Error, Model
from ._progress import Progress, callback
from ._results import Captured, CodeScores, Evaluation, Report, Scores

Path = Union[str, "os.PathLike[str]"]


def _json(options: Mapping[str, Any]) -> str:
    try:
        return _arrays.to_json(options)
    except _arrays.UNFIT:
        # Which of them it is.
        for name, value in {**options, **options.get("settings", {})}.items():
            if name != "settings":
                _arrays.dumps(name, value)
        raise


def _names(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "settings"]


def _of(model: Union[Model, Path], progress: Progress) -> Model:
    return model if isinstance(model, Model) else load_model(model, progress=progress)


def methods() -> list[dict[str, Any]]:
    """What there is to score heads with, as ``circuitscope methods`` lists it: for each its ``name``, what the score is
    (``summary``), what it ``needs`` (empty where head outputs are enough), its cost in ``passes`` of the model, and whether it
    is a ``control``, one of the ``quick`` ones, and the ``default``."""
    return json.loads(_circuitscope.methods())


def settings() -> dict[str, Any]:
    """The settings of methods with their defaults: every one is a keyword argument of :func:`score`, :func:`discover` and
    :func:`evaluate`. What a method does not read changes nothing."""
    return json.loads(_circuitscope.setting_names())


def load_model(
    name: Path,
    *,
    processing: str = "folded",
    dtype: str = "f32",
    strict_config: bool = False,
    progress: Progress = None,
) -> Model:
    """Load a model onto the CPU.

    Parameters
    ----------
    name
        ``"reference"`` (the small model inside this package, whose circuits are known), a folder in Hugging Face or
        TransformerLens layout, a GGUF file, ``"ollama:NAME"``, or ``"owner/name[@revision]"`` of the Hugging Face hub
        (``HF_HOME``, ``HF_TOKEN``, ``HF_ENDPOINT`` and ``HF_HUB_OFFLINE`` count).
    processing
        ``"folded"`` (norms folded in, writing weights centred, as TransformerLens does by default) or ``"raw"``.
    dtype
        What the weights are held in: ``"f32"``, ``"f16"`` or ``"bf16"``.
    strict_config
        Refuse a ``config.json`` with keys that nothing reads.

    Returns
    -------
    Model
        With ``name``, ``n_layers``, ``n_heads``, ``d_model``, ``provenance``, ``sites()`` and ``tokenize(text)``.
    """
    with callback(progress) as told:
        return _circuitscope.load_model(_arrays.path(name, "name"), processing, dtype, strict_config, told)


def score(
    head_outputs: Any,
    labels: Any,
    *,
    method: str = "recommended-activations",
    pairs: Optional[Iterable[tuple[int, int]]] = None,
    n_layers: Optional[int] = None,
    seed: int = 0,
    progress: Progress = None,
    **settings: Any,
) -> Scores:
    """Score every head by what it puts out. No model runs.

    Parameters
    ----------
    head_outputs
        ``[example, head, d]`` or ``[example, layer, head, d]``: what each head adds to the residual stream, one vector an
        example, as TransformerLens' ``stack_head_results`` gives it once positions are averaged (or one is taken) and examples
        come first. numpy, torch, or anything else with ``__array__`` or ``__dlpack__``; contiguous float32 is read where it
        lies.
    labels
        ``[example]``: true or 1 where the behaviour happens, false or 0 where it does not.
    method
        One of those that :func:`methods` lists as needing no model. The default averages ten untrained dictionaries;
        ``"sae"`` is the paper's, ``"sae-corrected"`` the same with *inactive* as a code.
    pairs
        Rows of matched examples, ``(positive, negative)``, for methods that compare the two.
    n_layers
        Layers of the model, where ``head_outputs`` has one axis for all heads (layer by layer). Without it, all heads count as
        of one layer, and no pair of heads is scored.
    settings
        Settings of the method, such as ``n_codes=200``, ``steps=500``: see :func:`settings`.

    Returns
    -------
    Scores
    """
    options = {
        "method": method,
        "pairs": [] if pairs is None else _arrays.rows(pairs),
        "n_layers": n_layers,
        "seed": seed,
        "settings": settings,
        "arguments": _names(score),
    }
    outputs, shown = _arrays.floats(head_outputs, "head_outputs"), _arrays.labels(labels)
    with callback(progress) as told:
        made = _circuitscope.score(outputs, shown, _json(options), told)
    return Scores._of_dict(made, d_model=outputs.shape[-1])


def score_codes(
    codes: Any,
    labels: Any,
    *,
    amplitudes: Any = None,
    n_layers: Optional[int] = None,
    paper_compatible: bool = False,
) -> CodeScores:
    """Count the codes that occur on positive examples and on no negative one: ``circuitscope score``.

    Parameters
    ----------
    codes
        ``[example, head]`` or ``[example, layer, head]``, whole numbers: the strongest feature of each head's output, -1 where
        none is active.
    labels
        ``[example]``, as for :func:`score`.
    amplitudes
        How active those features are, in the shape of ``codes``.
    paper_compatible
        Take -1 for code 0, as the authors' code does.
    """
    numbers = _arrays.codes(codes)
    sizes = None if amplitudes is None else _arrays.floats(amplitudes, "amplitudes")
    if sizes is not None and sizes.shape != numbers.shape:
        raise Error(
            f"amplitudes: found shape {list(sizes.shape)}, expected {list(numbers.shape)}, as codes have"
        )
    made = _circuitscope.score_codes(
        numbers, _arrays.labels(labels), sizes, n_layers, paper_compatible
    )
    return CodeScores(**made)


def discover(
    model: Union[Model, Path, None] = None,
    pairs: Any = None,
    method: str = "recommended",
    *,
    task: Optional[Path] = None,
    positive: Optional[Iterable[str]] = None,
    negative: Optional[Iterable[str]] = None,
    head_outputs: Any = None,
    labels: Any = None,
    n_layers: Optional[int] = None,
    examples: Optional[int] = None,
    circuit: Optional[Path] = None,
    only_correct: bool = False,
    select: Optional[str] = None,
    max_heads: Optional[int] = None,
    faithfulness: str = "auto",
    random_circuits: Optional[int] = None,
    tests: bool = False,
    sae: Optional[Path] = None,
    other_site: bool = False,
    explain: Union[str, Sequence[str]] = (),
    chat: bool = False,
    prepend_bos: Union[str, bool] = "auto",
    max_batch_tokens: Optional[int] = None,
    metric: Optional[str] = None,
    reference: str = "negative",
    seed: int = 0,
    progress: Progress = None,
    **settings: Any,
) -> Report:
    """Rank the heads of a model by how much they take part in a behaviour, choose a circuit, and see what it keeps.

    The behaviour is given by exactly one of ``pairs``, ``task``, ``positive`` with ``negative``, and ``head_outputs`` with
    ``labels`` (then no model runs). The numbers are those of ``circuitscope discover``, bit for bit on the same machine.

    Parameters
    ----------
    model
        From :func:`load_model`, or a name for it.
    pairs
        A file as ``--pairs`` reads it, or a list of ``(positive, negative)`` or of dicts with ``positive``, ``negative`` and, where
        known, ``answers``, ``wrong_answers``, ``spans``, ``slots``, ``variables``; or a data frame with such columns.
    method
        One of :func:`methods`.
    task
        ``"ioi"``, ``"greater-than"``, ``"docstring"``, ``"induction"``, or the folder of one of your own.
    positive, negative
        Prompts that show the behaviour, and prompts that do not.
    head_outputs, labels, n_layers
        As for :func:`score`.
    examples
        Pairs to draw of ``task``.
    circuit
        Whose circuits are taken for known: the name of a model, or a file.
    only_correct
        Use only the pairs that the model gets right.
    select
        Which heads form the circuit: ``"otsu"``, ``"otsu-sqrt"``, ``"knee"``, ``"top:N"``, ``"softmax:THETA"``,
        ``"stability:SHARE"``, ``"fdr:RATE"``.
    max_heads
        Show at most so many.
    faithfulness
        Whether to run the circuit with all other heads ablated: ``"auto"``, ``"all"``, ``"none"``.
    random_circuits
        Random circuits of the same size that it is set beside.
    tests
        Also put it to the five tests of an ideal circuit.
    sae, other_site
        The folder of a dictionary that is there already, for the methods ``"sae"`` and ``"sae-corrected"``; one that was trained
        on other activations than heads' outputs is refused, unless ``other_site``.
    explain
        Heads such as ``"L9H6"`` of which to say what they do.
    chat
        Put prompts into the chat template.
    prepend_bos
        ``"auto"``, ``True`` or ``False``.
    max_batch_tokens
        Largest batch, in padded tokens; changes no result.
    metric
        What is read from the output: ``"logit-difference"``, ``"contrast"``, …
    reference
        What takes the place of an ablated output: ``"negative"``, ``"mean"``, ``"position-mean"``, ``"zero"``, ``"resample"``.
    settings
        Settings of the method: see :func:`settings`.

    Returns
    -------
    Report
    """
    sources = {
        "pairs": pairs is not None,
        "task": task is not None,
        "positive and negative": positive is not None or negative is not None,
        "head_outputs and labels": head_outputs is not None or labels is not None,
    }
    given = [name for name, there in sources.items() if there]
    if len(given) != 1:
        raise Error(
            f"found {', '.join(given) or 'no examples'}, expected exactly one of {', '.join(sources)}"
        )
    for one, other, names in [
        (positive, negative, ("positive", "negative")),
        (head_outputs, labels, ("head_outputs", "labels")),
    ]:
        if (one is None) != (other is None):
            there, lacks = names if other is None else names[::-1]
            raise Error(f"found {there} without {lacks}, expected both")
    known: dict[str, Any] = {}
    if pairs is not None:
        known = _arrays.pairs(pairs)
    elif task is not None:
        known = {"task": _arrays.path(task, "task")}
    elif positive is not None and negative is not None:
        known = {
            "positive": _arrays.texts(positive, "positive"),
            "negative": _arrays.texts(negative, "negative"),
        }
    options = {
        "examples": known,
        "n_examples": examples,
        "circuit": None if circuit is None else _arrays.path(circuit, "circuit"),
        "only_correct": only_correct,
        "method": method,
        "select": select,
        "max_heads": max_heads,
        "faithfulness": faithfulness,
        "random_circuits": random_circuits,
        "tests": tests,
        "explain": _arrays.items([explain] if isinstance(explain, str) else explain, "explain", "heads"),
        "chat": chat,
        "prepend_bos": _bos(prepend_bos),
        "max_batch_tokens": max_batch_tokens,
        "metric": metric,
        "reference": reference,
        "seed": seed,
        "settings": settings,
        "arguments": _names(discover),
        "n_layers": n_layers,
        "unread": [],
        "sae": None if sae is None else _arrays.path(sae, "sae"),
        "other_site": other_site,
    }
    _needless(examples is not None and task is None and head_outputs is None, "examples", "the number of pairs of a task")
    _needless(n_layers is not None and head_outputs is None, "n_layers", "the layers of head_outputs")
    outputs = shown = None
    if head_outputs is not None:
        outputs, shown = _arrays.floats(head_outputs, "head_outputs"), _arrays.labels(labels)
        loaded = None
        of_model = {
            "model": model,
            "examples": examples,
            "circuit": circuit,
            "chat": chat,
            "prepend_bos": prepend_bos,
            "max_batch_tokens": max_batch_tokens,
            "metric": metric,
            "reference": reference,
        }
        usual = inspect.signature(discover).parameters
        options["unread"] = [
            name for name, given in of_model.items() if given != usual[name].default
        ]
    elif model is None:
        raise Error("model: found none, expected one, for prompts are run")
    else:
        loaded = _of(model, progress)
    with callback(progress) as told:
        found = _circuitscope.discover(loaded, _json(options), outputs, shown, told)
    width = loaded.d_model if loaded is not None else outputs.shape[-1]
    return Report(found, d_model=width)


def capture(
    model: Union[Model, Path],
    prompts: Union[Sequence[str], Sequence[Sequence[int]], None] = None,
    sites: Union[str, Sequence[str]] = "blocks.*.attn.hook_z",
    *,
    reduce: str = "none",
    task: Optional[Path] = None,
    examples: Optional[int] = None,
    chat: bool = False,
    prepend_bos: Union[str, bool] = "auto",
    max_batch_tokens: Optional[int] = None,
    seed: int = 0,
    progress: Progress = None,
) -> Captured:
    """Run a model on prompts and keep activations.

    Parameters
    ----------
    prompts
        Texts, or token numbers (nothing is put before those).
    sites
        Names as TransformerLens has them; ``*`` stands for any characters, ``"logits"`` for the output.
    reduce
        What to keep of the position axis: ``"none"`` (shorter prompts are padded on the right), ``"mean"``, ``"last"``.
    task, examples
        Instead of ``prompts``: so many pairs of a task, positives first.

    Returns
    -------
    Captured
        A mapping from the names of sites to float32 arrays: ``[prompt, position, …]``, without the position axis where it is
        reduced; such as ``[prompt, position, head, d_head]`` of ``attn.hook_z``, ``[prompt, head, query, key]`` of
        ``attn.hook_pattern``. Also ``tokens`` and ``lengths``.
    """
    if (prompts is None) == (task is None):
        raise Error("found both or none of prompts and task, expected exactly one of them")
    if prompts is not None:
        prompts = _arrays.items(prompts, "prompts", "texts, or of numbers of tokens")
    of_tokens = bool(prompts) and not isinstance(prompts[0], str)
    options = {
        "prompts": None if prompts is None or of_tokens else _arrays.texts(prompts, "prompts"),
        "tokens": _tokens(prompts) if of_tokens else None,
        "task": None if task is None else _arrays.path(task, "task"),
        "n_examples": examples,
        "sites": sites if isinstance(sites, str) else ",".join(_arrays.texts(sites, "sites")),
        "reduce": reduce,
        "chat": chat,
        "prepend_bos": _bos(prepend_bos),
        "max_batch_tokens": max_batch_tokens,
        "seed": seed,
    }
    _needless(examples is not None and task is None, "examples", "the number of pairs of a task")
    loaded = _of(model, progress)
    with callback(progress) as told:
        made = _circuitscope.capture(loaded, _json(options), told)
    return Captured(made["sites"], made["tokens"], made["notes"])


def evaluate(
    model: Union[Model, Path] = "reference",
    tasks: Union[Path, Sequence[Path], None] = None,
    methods: Union[str, Sequence[str]] = "quick",
    *,
    examples: Optional[int] = None,
    seeds: int = 3,
    resamples: int = 100,
    faithfulness: bool = False,
    cross_task: bool = False,
    scores: Union[Path, Sequence[Path]] = (),
    circuit: Optional[Path] = None,
    output: Optional[Path] = None,
    prepend_bos: Union[str, bool] = "auto",
    max_batch_tokens: Optional[int] = None,
    metric: Optional[str] = None,
    reference: str = "negative",
    seed: int = 0,
    progress: Progress = None,
    **settings: Any,
) -> Evaluation:
    """Judge methods by circuits that are known, over several seeds, beside controls that any method should beat:
    ``circuitscope eval``.

    Parameters
    ----------
    tasks
        Names of tasks or folders of your own; all whose circuit is known in the model where none is given.
    methods
        Names of :func:`methods`, or ``"quick"``, ``"all"``.
    examples
        Pairs of prompts for each task.
    seeds
        How many, counted from ``seed``.
    resamples
        Random halves of the prompts for intervals, at most.
    faithfulness
        Also run circuits of growing size.
    cross_task
        Also run the circuits of each task on every other: what they keep there.
    scores
        Files of other tools (EAP-IG's ``importances.json``, MIB's), judged as methods on the one task that they are for.
    output
        A folder that finished runs are kept in, so that an interrupted call goes on where it stopped.

    Returns
    -------
    Evaluation
    """
    options = {
        "tasks": None if tasks is None else _arrays.paths(tasks, "tasks", "tasks"),
        "methods": methods if isinstance(methods, str) else ",".join(_arrays.texts(methods, "methods")),
        "n_examples": examples,
        "seeds": seeds,
        "resamples": resamples,
        "faithfulness": faithfulness,
        "cross_task": cross_task,
        "scores": _arrays.paths(scores, "scores", "files"),
        "circuit": None if circuit is None else _arrays.path(circuit, "circuit"),
        "prepend_bos": _bos(prepend_bos),
        "max_batch_tokens": max_batch_tokens,
        "metric": metric,
        "reference": reference,
        "seed": seed,
        "settings": settings,
        "arguments": _names(evaluate),
    }
    loaded = _of(model, progress)
    folder = None if output is None else _arrays.path(output, "output")
    with callback(progress) as told:
        return Evaluation(_circuitscope.evaluate(loaded, _json(options), folder, told))


def _needless(there: bool, name: str, what: str) -> None:
    if there:
        raise Error(f"{name}: found it without what it belongs to: it is {what}")


def _bos(asked: Union[str, bool]) -> str:
    return str(asked).lower() if isinstance(asked, bool) else asked


def _tokens(prompts: Any) -> list[list[int]]:
    rows = []
    for at, row in enumerate(prompts):
        numbers = _arrays.as_numpy(row, f"prompts[{at}]")
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
            raise Error(f"prompts[{at}]: expected a text, or whole numbers of tokens")
        if numbers.size and numbers.min() < 0:
            raise Error(f"prompts[{at}]: found {numbers.min()}, expected numbers of tokens from 0")
        rows.append(numbers.astype(np.int64).tolist())
    return rows
