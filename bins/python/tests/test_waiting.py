"""Ctrl-C, other threads and progress while work is done."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import circuitscope as cs

#: Work of many seconds.
LONG = {"task": "ioi", "method": "acdc", "faithfulness": "none", "examples": 200, "patch_pairs": 200}


@pytest.mark.parametrize(
    "call",
    [
        f"cs.discover('reference', **{LONG!r})",
        "cs.score(np.random.default_rng(0).normal(size=(400, 12, 12, 768)), np.arange(400) % 2, method='sae', steps=100000)",
        "cs.evaluate('reference', methods='all', resamples=1000)",
    ],
    ids=["discover", "score", "evaluate"],
)
def test_ctrl_c_ends_the_work_within_a_second(call):
    script = f"""
    import time
    import numpy as np
    import circuitscope as cs
    told = lambda *said: print("at work", flush=True)
    try:
        {call[:-1]}, progress=told)
    except KeyboardInterrupt:
        print("interrupted", time.time(), flush=True)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "at work\n"
    time.sleep(1.0)
    sent = time.time()
    child.send_signal(signal.SIGINT)
    rest = child.stdout.read()
    child.wait(timeout=30)
    last = rest.splitlines()[-1].split()
    assert last[0] == "interrupted", rest
    assert float(last[1]) - sent < 1.0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_that_is_forked_is_told_to_spawn(toy):
    cs.score(*toy)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            cs.score(*toy)
            said = "nothing"
        except cs.Error as error:
            said = str(error)
        os.write(write, said.encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert 'start it with the method "spawn"' in os.read(read, 1000).decode()


def test_other_threads_run_meanwhile():
    draw = np.random.default_rng(0)
    outputs = draw.normal(size=(200, 12, 12, 256)).astype(np.float32)
    counted, over = [0], threading.Event()

    def count():
        while not over.is_set():
            counted[0] += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    before, start = counted[0], time.monotonic()
    cs.score(outputs, np.arange(200) % 2)
    seconds, during = time.monotonic() - start, counted[0] - before
    over.set()
    thread.join()
    assert during > 20 * seconds, f"{during} turns in {seconds:.2f} s"


def test_progress_is_told():
    told = []
    cs.discover("reference", task="induction", examples=60, progress=lambda *said: told.append(said))
    assert told, "no stage was told"
    for stage, done, total in told:
        assert isinstance(stage, str) and 0 <= done and isinstance(total, int)
    assert any(done == total > 0 for _, done, total in told), "no stage was told to its end"
    cs.discover("reference", task="induction", examples=6, progress=False, faithfulness="none")


def test_work_that_is_over_at_once_is_told_of_too(toy):
    told = []
    cs.score(*toy, method="sae", steps=20, progress=lambda *said: told.append(said))
    assert told and told[-1][1] == told[-1][2] == 20


def test_what_progress_raises_ends_the_work():
    class Enough(Exception):
        pass

    def told(*said):
        raise Enough

    start = time.monotonic()
    with pytest.raises(Enough):
        cs.discover("reference", progress=told, **LONG)
    assert time.monotonic() - start < 5.0


def test_work_goes_on_in_threads():
    outcome = []
    thread = threading.Thread(
        target=lambda: outcome.append(cs.discover("reference", task="induction", examples=6))
    )
    thread.start()
    thread.join()
    assert "L2H5" in outcome[0].circuit
