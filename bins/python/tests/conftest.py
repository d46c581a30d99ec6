"""What the tests share. `CIRCUITSCOPE_PROGRAM` names the release program that numbers are compared with."""

import json
import os
import subprocess

import numpy as np
import pytest

import circuitscope as cs


@pytest.fixture(scope="session")
def model():
    return cs.load_model("reference")


@pytest.fixture(scope="session")
def program():
    """Runs the program and returns what it prints as JSON."""
    path = os.environ.get("CIRCUITSCOPE_PROGRAM")
    if not path:
        pytest.fail("CIRCUITSCOPE_PROGRAM is not set: it names the program that numbers are compared with")

    def run(*args):
        done = subprocess.run(
            [path, *map(str, args), "--format", "json", "--quiet"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout else None

    return run


@pytest.fixture(scope="session")
def toy():
    """Head outputs `[example, layer, head, d]` in which L1H0 alone tells the classes apart, and their labels."""
    draw = np.random.default_rng(0)
    outputs = draw.normal(size=(40, 2, 3, 8)).astype(np.float32)
    labels = np.arange(40) % 2 == 0
    outputs[labels, 1, 0] += 4.0
    return outputs, labels
