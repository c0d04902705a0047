"""Where latent weights lie in their bins over a run, against counts by hand."""

import numpy as np
import pytest
import torch

import oscillab
from oscillab.plot.figures import draw
from oscillab.quant import quant_layers
from oscillab.recording.crowding import FIRST_INTERVAL, MOST_ROWS
from oscillab.recording.tables import crowding


@pytest.fixture
def small_model():
    """Two convolutions at 3 bit."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 1))
    return oscillab.quantize(model, oscillab.QuantSpec(bits=3, first_last_bits=3), [torch.rand(2, 3, 8, 8)])


def test_shares_near_an_edge_by_hand(small_model):
    """Oracle: round and distance by numpy on the latent weights themselves; a run that goes on from a state has the same rows."""
    model = small_model
    layer = next(iter(quant_layers(model).values()))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.003)
    shares, generator = [], torch.Generator().manual_seed(0)

    def look():
        grid = layer.weight_quantizer
        position = (layer.weight / layer.weight_step_size()).detach().double().numpy().ravel()
        edge = np.clip(np.floor(position) + 0.5, grid.low + 0.5, grid.high - 0.5)
        shares.append((np.abs(position - edge) < 0.05).mean())

    def train(recorder, steps):
        for step in range(recorder.step_count + 1, steps + 1):
            for p in model.parameters():
                p.grad = torch.randn(p.shape, generator=generator)
            optimizer.step()
            if step % FIRST_INTERVAL == 0:
                look()

    look()
    with oscillab.record(model, optimizer) as recorder:
        train(recorder, 60)
        state = recorder.state_dict()
    with oscillab.record(model, optimizer) as recorder:
        recorder.load_state_dict(state)
        train(recorder, 100)
    table = crowding(recorder.recording())
    own = table[table["layer"] == table["layer"].iloc[0]]
    assert list(own["step"]) == [0, 25, 50, 75, 100]
    np.testing.assert_allclose(own["near_edge_share"], shares, atol=0.5 / layer.weight.numel() + 1e-6)
    flips = recorder.recording()["layer_flip_count"][:, 0]
    assert own["flip_rate"].iloc[2] == pytest.approx(flips[26:51].sum() / layer.weight.numel() / 25)


def test_a_long_run_keeps_equally_spaced_rows(small_model):
    """Oracle: by hand: 500 and 1,000 steps have 21 rows, 50 apart in the second."""
    optimizer = torch.optim.SGD(small_model.parameters(), lr=0.0)
    counts = {}
    with oscillab.record(small_model, optimizer, ranges_every=0) as recorder:
        for step in range(1, 1001):
            optimizer.step()
            if step in (500, 975, 1000):
                counts[step] = list(recorder.recording()["edge_distance_step"])
    assert counts[500] == list(range(0, 501, 25)) and counts[1000] == list(range(0, 1001, 50))
    assert len(counts[975]) == MOST_ROWS


def test_the_figure_shows_the_table(small_model):
    """Oracle: `crowding`'s rows of the layer; a recording without latent weights' counts of large layers is refused."""
    optimizer = torch.optim.SGD(small_model.parameters(), lr=0.0)
    with oscillab.record(small_model, optimizer, ranges_every=0) as recorder:
        for _ in range(50):
            optimizer.step()
    recording = recorder.recording()
    left, right = draw(recording, "crowding", "0").axes
    table = crowding(recording)
    np.testing.assert_allclose(right.lines[0].get_ydata(), 100 * table[table["layer"] == "0"]["near_edge_share"])
    assert [line.get_label() for line in left.lines[:3]] == ["step 0", "step 25", "step 50"]
    assert left.lines[0].get_ydata().mean() == pytest.approx(1)
    with pytest.raises(ValueError, match="no latent weights of a layer of 1,000 weights and 4 bits or fewer"):
        draw(recording, "crowding")
