"""Tensors of torch. `cargo xtask wheel` installs no torch: these run where it is there, and `test_score.py` has the same
protocols without it."""

import numpy as np
import pytest

import circuitscope as cs

torch = pytest.importorskip("torch")


def test_tensors_are_read_where_they_lie(toy):
    from circuitscope import _arrays

    outputs, labels = toy
    tensor = torch.from_numpy(outputs)
    assert np.shares_memory(_arrays.floats(tensor, "x"), outputs)
    expected = cs.score(outputs, labels).nodes
    needs_gradient = tensor.clone().requires_grad_()
    for given in (tensor, needs_gradient, tensor.double(), tensor.transpose(0, 1).contiguous().transpose(0, 1)):
        np.testing.assert_array_equal(cs.score(given, torch.from_numpy(labels)).nodes, expected)


def test_bfloat16_is_widened(toy):
    outputs, labels = toy
    short = torch.from_numpy(outputs).bfloat16()
    expected = cs.score(short.float().numpy(), labels).nodes
    np.testing.assert_array_equal(cs.score(short, labels).nodes, expected)
