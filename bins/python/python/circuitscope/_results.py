"""What calls return."""

from __future__ import annotations

import csv
import html
import json
import os
from dataclasses import dataclass, field
from typing import Any, Iterator, Mapping, Optional, Union

import numpy as np

from . import _arrays, _circuitscope
from ._circuitscope import Error

Path = Union[str, "os.PathLike[str]"]

#: Heads that tables in notebooks show.
SHOWN = 20


def _pandas(what: str) -> Any:
    try:
        import pandas
    except ImportError:
        raise ImportError(f"{what}.to_pandas needs pandas: pip install pandas") from None
    return pandas


def _table(header: list[str], rows: list[list[str]]) -> str:
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    lines = [f"<tr>{cells}</tr>"]
    for row in rows:
        lines.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>")
    return "<table>" + "".join(lines) + "</table>"


def _figure(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, eq=False, repr=False)
class Scores:
    """A score for each head, and for pairs of heads where the method has them.

    Attributes
    ----------
    method
        What made them.
    nodes
        ``[layer, head]`` float64.
    signed
        The same with signs, below 0 for heads that work against the behaviour, where the method has them.
    edges
        ``[layer * head, layer * head]`` float64, writer by reader, 0 unless the writer is in an earlier layer; or ``None``.
    paper_edge_head_counts
        ``[layer, head]``: what the authors' code calls an edge score; or ``None``.
    dictionary
        What the dictionary did, where the method has one.
    notes
        What was assumed, such as that another method took the place of the one asked for.
    """

    method: str
    nodes: np.ndarray
    edges: Optional[np.ndarray] = None
    signed: Optional[np.ndarray] = None
    paper_edge_head_counts: Optional[np.ndarray] = None
    dictionary: Optional[dict[str, Any]] = None
    d_model: Optional[int] = None
    notes: list[str] = field(default_factory=list)
    _importances: Optional[str] = field(default=None)

    @classmethod
    def _of_dict(cls, made: Mapping[str, Any], d_model: int) -> Scores:
        known = dict(made)
        known["dictionary"] = json.loads(known["dictionary"])
        return cls(d_model=d_model, **known)

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return self.nodes.shape[0]

    @property
    def n_heads(self) -> int:
        """Heads of each layer."""
        return self.nodes.shape[1]

    def ranking(self) -> list[tuple[str, float]]:
        """Heads such as ``"L9H6"`` from the highest score to the lowest; equal scores layer by layer."""
        flat = self.nodes.ravel()
        order = np.argsort(-flat, kind="stable")
        return [(self._head(at), float(flat[at])) for at in order]

    def top(self, heads: int) -> list[str]:
        """The best heads."""
        if not isinstance(heads, (int, np.integer)) or heads < 0:
            raise Error(f"heads: found {heads!r}, expected a whole number that is not negative")
        return [head for head, _ in self.ranking()[:heads]]

    def _head(self, at: Any) -> str:
        layer, head = divmod(int(at), self.n_heads)
        return f"L{layer}H{head}"

    def to_pandas(self) -> Any:
        """A data frame with a row for each head, best first: ``head``, ``layer``, ``index``, ``score`` and, where the method has
        signs, ``signed``."""
        pandas = _pandas("Scores")
        order = np.argsort(-self.nodes.ravel(), kind="stable")
        columns: dict[str, Any] = {
            "head": [self._head(at) for at in order],
            "layer": order // self.n_heads,
            "index": order % self.n_heads,
            "score": self.nodes.ravel()[order],
        }
        if self.signed is not None:
            columns["signed"] = self.signed.ravel()[order]
        return pandas.DataFrame(columns)

    def to_eap_ig(
        self,
        path: Optional[Path] = None,
        *,
        mlps: bool = True,
        parallel: bool = False,
    ) -> dict[str, Any]:
        """The scores as EAP-IG and MIB's circuit track keep them, and written to ``path`` if one is given.

        Scores of a :class:`Report` come with the graph of its model. Of others ``mlps`` and ``parallel`` say whether layers have an
        MLP, and whether it reads the stream before attention has written.
        """
        text = self._importances
        if text is None:
            nodes = np.ascontiguousarray(self.nodes)
            text = _circuitscope.graph_file(nodes, self.d_model or 0, mlps, parallel)
        if path is not None:
            _circuitscope.write_text(_arrays.path(path, "path"), text)
        return json.loads(text)

    def __array__(self, dtype: Any = None, copy: Optional[bool] = None) -> np.ndarray:
        return np.array(self.nodes, dtype=dtype, copy=True if copy is None else copy)

    def __repr__(self) -> str:
        best = ", ".join(f"{head} {score:.4g}" for head, score in self.ranking()[:3])
        return f"<Scores of {self.n_layers} layers of {self.n_heads} heads by {self.method}: {best}, …>"

    def _repr_html_(self) -> str:
        rows = [
            [str(at + 1), head, _figure(score)]
            for at, (head, score) in enumerate(self.ranking()[:SHOWN])
        ]
        return _table(["rank", "head", f"score ({self.method})"], rows)


@dataclass(frozen=True, eq=False)
class CodeScores:
    """Numbers of codes.

    Attributes
    ----------
    unique
        ``[layer, head]``: codes seen on positives and on no negative, the paper's score.
    union
        ``[layer, head]``: codes seen at all.
    normalised
        ``unique / union``.
    amplitude_scores
        ``[layer, head]``: mean amplitude of the unique codes, where amplitudes are known.
    edges, edges_normalised
        ``[layer * head, layer * head]``: the same of pairs of codes.
    paper_edge_head_counts
        ``[layer, head]``: what the authors' code calls an edge score.
    """

    unique: np.ndarray
    union: np.ndarray
    normalised: np.ndarray
    amplitude_scores: Optional[np.ndarray]
    edges: np.ndarray
    edges_normalised: np.ndarray
    paper_edge_head_counts: np.ndarray


class Captured(Mapping):  # type: ignore[type-arg]
    """Activations by the names of their sites; see :func:`circuitscope.capture`.

    Attributes
    ----------
    tokens
        The numbers of the tokens of each prompt, what stands before it included.
    lengths
        ``[prompt]``: how many there are.
    notes
        What was assumed.
    """

    def __init__(self, sites: dict[str, np.ndarray], tokens: Any, notes: list[str]) -> None:
        self._sites = sites
        self.tokens = [list(row) for row in tokens]
        self.lengths = np.array([len(row) for row in self.tokens])
        self.notes = notes

    def __getitem__(self, site: str) -> np.ndarray:
        return self._sites[site]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {list(values.shape)}" for name, values in self.items())
        return f"<Captured of {len(self.tokens)} prompts: {shapes}>"


class Report:
    """What :func:`circuitscope.discover` found.

    Attributes
    ----------
    scores
        :class:`Scores` of all heads.
    circuit
        The heads chosen, best first, such as ``["L9H6", …]``.
    heads
        A dict for each head, best first: ``head``, ``score``, ``selected`` and, where known, ``signed``, ``differs``, ``used``,
        ``norm``.
    conclusion
        What may be concluded, in one sentence.
    notes
        What was assumed.
    behaviour, quality, kept_by_size, tests, cards, known
        As ``discovery.json`` has them, or ``None``: whether the model shows the behaviour, what the circuit keeps, what fewer and
        more heads keep, the tests, what heads do, the circuit that is known.
    """

    def __init__(self, found: Any, d_model: int) -> None:
        self._found = found
        self._dict: dict[str, Any] = json.loads(found.json())
        self.heads: list[dict[str, Any]] = self._dict["heads"]
        self.circuit: list[str] = [head["head"] for head in self.heads if head["selected"]]
        self.conclusion: str = found.conclusion()
        self.notes: list[str] = found.notes()
        self.method: str = self._dict["method"]
        counts = self._dict.get("paper_edge_head_counts")
        nodes = found.nodes()
        signed = None
        if all("signed" in head for head in self.heads):
            signed = np.empty(nodes.shape)
            for head in self.heads:
                layer, _, index = head["head"][1:].partition("H")
                signed[int(layer), int(index)] = head["signed"]
        self.scores = Scores(
            method=self.method,
            nodes=nodes,
            edges=found.edges(),
            signed=signed,
            paper_edge_head_counts=None if counts is None else np.array(counts).reshape(nodes.shape),
            dictionary=self._dict.get("dictionary"),
            d_model=d_model,
            _importances=found.importances(),
        )

    def __getattr__(self, name: str) -> Any:
        if name in ("behaviour", "quality", "kept_by_size", "tests", "cards", "known", "metric"):
            return self._dict.get(name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def sentences(self) -> list[str]:
        """What is known of the prompts, of the circuit and of what it keeps; those that warn begin with ``warning:``."""
        return self._found.sentences()

    def to_dict(self) -> dict[str, Any]:
        """Everything, as ``discovery.json`` has it."""
        return json.loads(self._found.json())

    def to_json(self) -> str:
        """The same as text."""
        return self._found.json()

    def to_pandas(self) -> Any:
        """A data frame with a row for each head, best first, with the columns of ``scores.csv``."""
        pandas = _pandas("Report")
        rows = list(csv.DictReader(self._found.table().splitlines()))
        frame = pandas.DataFrame(rows)
        for name in frame.columns.difference(["head", "selected"]):
            whole = name in ("rank", "layer", "index")
            frame[name] = [int(x) if whole else float(x or "nan") for x in frame[name]]
        frame["selected"] = frame["selected"] == "true"
        return frame

    def to_eap_ig(self, path: Optional[Path] = None) -> dict[str, Any]:
        """Scores and circuit as EAP-IG and MIB's circuit track keep them, and written to ``path`` if one is given."""
        return self.scores.to_eap_ig(path)

    def save(self, folder: Path) -> str:
        """Write what ``discover --output`` writes: ``discovery.json``, ``scores.csv``, the prompts, the files of other tools, and a
        page that opens offline, whose path is returned. ``circuitscope compare`` reads the folder."""
        return os.fspath(self._found.save(_arrays.path(folder, "folder")))

    def __repr__(self) -> str:
        circuit = " ".join(self.circuit) or "none shown"
        return f"<Report by {self.method}: circuit {circuit}>"

    def _repr_html_(self) -> str:
        columns = ["head", "score", "signed", "differs", "used", "norm", "selected"]
        columns = [name for name in columns if any(name in head for head in self.heads)]
        rows = [
            [_figure(head.get(name)) if name != "selected" else "●" if head[name] else "" for name in columns]
            for head in self.heads[:SHOWN]
        ]
        circuit = html.escape(", ".join(self.circuit) or "none shown")
        said = "".join(f"<li>{html.escape(said)}</li>" for said in self.sentences())
        return (
            f"<p><b>{html.escape(self.conclusion)}</b></p><p>circuit: {circuit}</p>"
            + _table(columns, rows)
            + f"<details><summary>what it rests on</summary><ul>{said}</ul></details>"
        )


class Evaluation:
    """What :func:`circuitscope.evaluate` found.

    Attributes
    ----------
    summary
        A dict for each task and method, as ``results.json`` has them: ``node_auc``, ``edge_auc``, ``not_above``, …
    scores
        ``[layer, head]`` by ``(task, method, seed)``.
    cross_task
        For each way of choosing circuits what those of each task keep of every other, as ``results.json`` has it; empty where that was
        not asked for.
    notes
        What was assumed.
    """

    def __init__(self, made: Any) -> None:
        self._made = made
        self._dict: dict[str, Any] = json.loads(made.json())
        self.summary: list[dict[str, Any]] = self._dict["summary"]
        self.cross_task: list[dict[str, Any]] = self._dict.get("cross_task", [])
        self.notes: list[str] = made.notes()
        self.scores = {(task, method, seed): nodes for task, method, seed, nodes in made.scores()}

    def to_dict(self) -> dict[str, Any]:
        """Everything, as ``results.json`` has it."""
        return json.loads(self._made.json())

    def to_pandas(self) -> Any:
        """A data frame with a row for each task and method; of what varies with the seed the mean, and its standard deviation
        under the name with ``_std``."""
        pandas = _pandas("Evaluation")
        rows = []
        for row in self.summary:
            flat: dict[str, Any] = {}
            for name, value in row.items():
                if isinstance(value, dict) and "mean" in value:
                    flat[name] = value["mean"]
                    flat[f"{name}_std"] = value.get("std")
                elif not isinstance(value, (dict, list)) or name == "not_above":
                    flat[name] = value
            rows.append(flat)
        return pandas.DataFrame(rows)

    def save(self, folder: Path) -> str:
        """Write what ``eval --output`` writes; the path of the page."""
        return os.fspath(self._made.save(_arrays.path(folder, "folder")))

    def __repr__(self) -> str:
        tasks = sorted({row["task"] for row in self.summary})
        methods = sorted({row["method"] for row in self.summary})
        return f"<Evaluation of {len(methods)} methods on {', '.join(tasks)}>"

    def _repr_html_(self) -> str:
        rows = [
            [
                row["task"],
                row["method"] + (" (control)" if row["control"] else ""),
                _figure(row["node_auc"]["mean"]),
                ", ".join(row["not_above"]) or "–",
            ]
            for row in self.summary
        ]
        return _table(["task", "method", "node AUC", "not clearly above"], rows)
