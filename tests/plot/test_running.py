"""Does the live widget follow a run, stop it, and cost what it may?

`test_a_kernel_hears_the_click` is the one that matters: a real kernel, busy in a cell, gets the message that a browser
sends for a click.
"""

import asyncio
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from oscillab.plot.pace import Pace
from oscillab.plot.running import Live


@pytest.fixture
def live(monkeypatch):
    """A Live of a recorder that has two steps of one 3-bit layer to tell."""
    import numpy as np

    rows = {"step": np.arange(3), "layer_flip_count": np.array([[0], [2], [1]]), "step_size": np.ones((3, 1))}
    recorder = SimpleNamespace(
        bytes_per_weight=lambda: 8.0,
        layers=SimpleNamespace(layers=[SimpleNamespace(bits=3, shape=(4, 5))]),
        settings=SimpleNamespace(every=1),
        rows=SimpleNamespace(
            counts=lambda: (3, 0, 0), arrays=lambda since: {k: v[since[0] :] for k, v in rows.items()}
        ),
    )
    return Live(recorder)


def test_it_awaits_a_run_and_tells_where_it_is(live):
    """Oracle: the function's own value; the last flips by hand (1 of 20 weights), the last step and loss."""

    def train():
        for step in (1, 2):
            live.note(step, 0.5 * step)
        return "trained"

    assert asyncio.run(live.run(train)) == "trained"
    assert live.sentence().startswith("step 2, ") and "loss 1.000; flips in a step: lsq 5 %" in live.sentence()
    assert live.status.value.startswith("done: step 2") and live.button.disabled


def test_the_button_ends_a_run(live):
    """Oracle: a loop that would never end ends; the status says that it was stopped."""

    async def click_later():
        await asyncio.sleep(0.3)
        assert not live.button.disabled
        live.button.click()

    def train():
        while not live.stopping:
            time.sleep(0.01)
        live.note(7, 1.0)

    async def both():
        await asyncio.wait_for(asyncio.gather(live.run(train), click_later()), 30)

    asyncio.run(both())
    assert live.status.value.startswith("stopped: step 7")


def test_an_error_of_the_run_comes_out_of_it(live):
    """Oracle: the run's own error, and a button that is off again."""

    def train():
        raise FloatingPointError("the loss became nan")

    with pytest.raises(FloatingPointError, match="became nan"):
        asyncio.run(live.run(train))
    assert live.button.disabled


def test_a_trainer_is_stopped_through_its_own_method(live):
    """Oracle: the trainer's `stop` is called once by the button, and at its start where the button came before."""
    calls = []
    trainer = SimpleNamespace(total_steps=9, step=1, last_loss=1.0, stop=lambda: calls.append("stop"))
    live.start(trainer)
    live.button.click()
    assert calls == ["stop"]


def test_the_picture_keeps_the_pace(live, monkeypatch):
    """Oracle: the rule of `pace.py` by hand: a step takes 0.1 s, a picture 0.06 s, so one in 6 s; ten in a minute."""
    now, drawn = [1000.0], []

    def refresh():
        drawn.append(now[0])
        now[0] += 0.06

    live.pace = Pace(lambda: now[0])
    monkeypatch.setattr(live, "_refresh", refresh)
    live.pace.start()
    for step in range(1, 601):
        now[0] += 0.1
        live.note(step, 1.0)
    assert 9 <= len(drawn) <= 11 and live.pace.count == len(drawn)


def test_the_last_picture_says_how_it_ended(live):
    """Oracle: the sentence above the panels, and a picture that is not the one before it."""
    live.note(2, 1.0)
    before = live.picture.value
    live._finish()
    assert live.moving.sentence.get_text().startswith("After 1 steps.") and live.picture.value != before


def test_it_is_reached_by_its_name_alone(root):
    """Oracle: the README's `oscillab.plot.live` in a Python that has imported nothing else."""
    code = "import oscillab; print(oscillab.plot.live.__name__)"
    run = [sys.executable, "-c", code]
    assert subprocess.run(run, capture_output=True, text=True, env=environment(root)).stdout == "live\n"


@pytest.mark.slow
def test_a_kernel_hears_the_click(root):
    """Oracle: a cell that would run for a minute, unstopped, ends stopped after the front end's message; after an interrupt."""
    manager = pytest.importorskip("jupyter_client.manager")
    kernel, client = manager.start_new_kernel(kernel_name="python3", cwd=str(root), env=environment(root))
    try:
        client.execute_interactive(SETUP, timeout=60)
        for act in (click, interrupt):
            begin = time.monotonic()
            assert run_and(act, kernel, client).strip() == "stopped True"
            assert time.monotonic() - begin < 30
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


SETUP = """
import time
from types import SimpleNamespace as Plain
import numpy as np
from oscillab.plot.running import Live
rows = {"step": np.zeros(1, int), "layer_flip_count": np.zeros((1, 1)), "step_size": np.ones((1, 1))}
recorder = Plain(bytes_per_weight=lambda: 8.0, layers=Plain(layers=[Plain(bits=3, shape=(4, 5))]),
                 settings=Plain(every=1), rows=Plain(counts=lambda: (0, 0, 0), arrays=lambda since: rows))
def train():
    end = time.monotonic() + 60
    while not live.stopping and time.monotonic() < end:
        time.sleep(0.02)
"""
RUN = "live = Live(recorder)\nawait live.run(train)\nprint('stopped', live.stopping)"


def environment(root):
    """The environment of a kernel that sees this very checkout."""
    import os

    return os.environ | {"PYTHONPATH": str(root)}


def run_and(act, kernel, client):
    """What the cell printed; `act` is called once its button is there."""
    request, printed, button = client.execute(RUN), "", None
    while True:
        message = client.get_iopub_msg(timeout=90)
        content, mine = message["content"], message["parent_header"].get("msg_id") == request
        if message["msg_type"] == "comm_open" and content["data"]["state"].get("_model_name") == "ButtonModel":
            button = content["comm_id"]
        if message["msg_type"] == "display_data" and mine:
            time.sleep(1)
            act(kernel, client, button)
        if message["msg_type"] == "stream" and mine and content["name"] == "stdout":
            printed += content["text"]
        if message["msg_type"] == "status" and mine and content["execution_state"] == "idle":
            return printed


def click(kernel, client, button):
    """What a browser sends when the button is clicked."""
    data = {"method": "custom", "content": {"event": "click"}}
    client.shell_channel.send(client.session.msg("comm_msg", {"comm_id": button, "data": data}))


def interrupt(kernel, client, button):
    """What the square in the toolbar does."""
    kernel.interrupt_kernel()
