"""Does the live widget follow a run, stop it, go on after it, and cost what it may? A real kernel hears the click."""

import asyncio
import os
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from oscillab.plot.live_widget import PAUSE, SHARE, FlipCurves, Live, thinned
from oscillab.quant import QuantSpec, quantize
from oscillab.recording.recorder import record


@pytest.fixture(scope="module")
def trained():
    """A 3-bit network of two convolutions, its optimizer, and a function that makes one step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3))
    quantize(model, QuantSpec(bits=3, first_last_bits=3), [torch.rand(2, 3, 12, 12)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

    def step():
        optimizer.zero_grad()
        model(torch.rand(2, 3, 12, 12)).square().mean().backward()
        optimizer.step()

    return model, optimizer, step


ROWS = {"step": np.arange(3), "layer_flip_count": np.array([[0], [2], [1]]), "step_size": np.ones((3, 1))}
RECORDER = SimpleNamespace(
    bytes_per_weight=lambda: 8.0,
    layers=SimpleNamespace(layers=[SimpleNamespace(bits=3, shape=(4, 5))]),
    settings={"every": 1},
    rows=SimpleNamespace(counts=lambda: (3, 0, 0), arrays=lambda since: {k: v[since[0] :] for k, v in ROWS.items()}),
)  # has two steps of one 3-bit layer to tell


@pytest.fixture
def live(quick):
    """A Live of that recorder."""
    return Live(RECORDER)


def test_reading_twice_takes_each_row_once(trained):
    """Oracle: the recording itself, whose flips over all weights and step sizes over their first are the curves."""
    model, optimizer, step = trained
    with record(model, optimizer) as recorder:
        curves = FlipCurves(recorder)
        for number in range(1, 8):
            step()
            if number % 3 == 0:
                curves.read()
        curves.read()
    recording = recorder.recording()
    assert curves.table["step"].tolist() == recording.steps.tolist() == list(range(8))
    shares = recording["layer_flip_count"].sum(1) / recording.weight_count
    np.testing.assert_allclose(curves.table["share"].iloc[1:], shares[1:])
    ratio = recording["step_size"] / recording["step_size"][0]
    np.testing.assert_allclose(curves.table[0.5], np.median(ratio, 1), rtol=1e-6)


def test_a_recorder_that_was_not_entered_is_refused(trained):
    """Oracle: the documented error, before anything is shown."""
    with pytest.raises(ValueError, match="nothing is recorded yet"):
        Live(record(*trained[:2]))


def test_thinning_keeps_the_mean():
    """Oracle: the mean of a line is the mean of its blocks' means; few points stay as they are."""
    table = pd.DataFrame({"step": range(1000), "loss": np.arange(1000.0)})
    small = thinned(table, most=100)
    assert len(small) == 100 and small["loss"].mean() == pytest.approx(499.5)
    assert thinned(table.head(2))["loss"].tolist() == [0, 1] and thinned(table.head(0)).empty


def test_it_awaits_a_run_and_tells_where_it_is(live):
    """Oracle: the function's own value; the last flips by hand (1 of 20 weights), the last step and loss."""
    assert bytes(live.image.value).startswith(b"\x89PNG") and live.sentence() == "no step yet"

    def train():
        live.note(1, 0.5)
        live.note(2, 1.0)
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


class Trainer:
    """A run of six steps with the parts of a Trainer that a Live knows; it is stopped at `stop_at`."""

    def __init__(self, stop_at):
        self.step, self.total_steps, self.last_loss, self.callbacks, self.stop_at = 0, 6, 1.0, [], stop_at
        self._stopping = False

    def stop(self):
        self._stopping = True

    def fit(self):
        self._stopping = False
        for one in self.callbacks:
            one.start(self)
        while self.step < self.total_steps and not self._stopping:
            self.step += 1
            for one in self.callbacks:
                one.step_end(self)
                if self.step == self.stop_at:
                    one.stop()
        return self.step


@pytest.mark.parametrize("same_widget", [True, False])
def test_a_stopped_run_goes_on_with_the_next_call(live, same_widget):
    """Oracle: step 4 where it was stopped, 6 of 6 after the second call, and a third call that has nothing to do."""
    trainer = Trainer(stop_at=4)
    assert asyncio.run(live.fit(trainer)) == 4 and live.status.value.startswith("stopped: step 4 of 6")
    assert not trainer.callbacks
    second, third = live if same_widget else Live(RECORDER), Live(RECORDER)
    assert asyncio.run(second.fit(trainer)) == 6 and second.status.value.startswith("done: step 6 of 6")
    assert asyncio.run(third.fit(trainer)) == 6
    assert third.status.value == "done: all 6 steps were made before"


def test_a_trainer_is_stopped_at_its_start_where_the_button_came_before(live):
    """Oracle: no step is made."""

    async def press_first(trainer):
        work = asyncio.create_task(live.fit(trainer))
        await asyncio.sleep(0)
        live.stop()
        return await work

    assert asyncio.run(press_first(Trainer(stop_at=None))) == 0


@pytest.mark.parametrize("cost", [0.001, 0.1, 0.6])
def test_figures_of_a_run_come_as_seldom_as_they_are_dear(live, monkeypatch, cost):
    """Oracle: the rule by hand: from one figure to the next max(2, cost / 0.1) s, seen only at the end of a step of 0.1 s."""
    now, drawn = [1000.0], []

    def draw(headline=""):
        drawn.append(now[0])
        now[0] += cost

    monkeypatch.setattr(live, "clock", lambda: now[0])
    monkeypatch.setattr(live, "draw", draw)
    live._due = now[0]
    for number in range(1, 601):
        now[0] += 0.1
        live.note(number, 1.0)
    pauses = np.diff(drawn)
    assert len(pauses) >= 3 and (pauses >= max(PAUSE, cost / SHARE) - 1e-6).all()
    assert (pauses <= max(PAUSE, cost / SHARE) + 0.1 + 1e-6).all()


def test_the_last_figure_says_how_it_ended_and_only_that(live):
    """Oracle: another image than before the end; byte for byte that of a run that was drawn once alone."""
    live.note(2, 1.0)
    before = live.image.value
    live._finish()
    once = Live(RECORDER)
    once.losses = [(2, 1.0)]
    once._finish()
    assert before != live.image.value == once.image.value


@pytest.mark.slow
def test_a_kernel_hears_the_click(root):
    """Oracle: a cell that would run for a minute, unstopped, ends stopped after the front end's message; after an interrupt."""
    manager = pytest.importorskip("jupyter_client.manager")
    kernel, client = manager.start_new_kernel(
        kernel_name="python3", cwd=str(root), env=os.environ | {"PYTHONPATH": str(root)}
    )
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
from oscillab.plot.live_widget import Live
rows = {"step": np.zeros(1, int), "layer_flip_count": np.zeros((1, 1)), "step_size": np.ones((1, 1))}
recorder = Plain(bytes_per_weight=lambda: 8.0, layers=Plain(layers=[Plain(bits=3, shape=(4, 5))]),
                 settings={"every": 1}, rows=Plain(counts=lambda: (0, 0, 0), arrays=lambda since: rows))
def train():
    end = time.monotonic() + 60
    while not live.stopping and time.monotonic() < end:
        time.sleep(0.02)
"""
RUN = "live = Live(recorder)\nawait live.run(train)\nprint('stopped', live.stopping)"


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
