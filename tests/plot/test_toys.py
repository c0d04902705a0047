"""Drawings of the toys, against trajectories written by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from oscillab.plot.toys import draw_frequencies, draw_one_weight, draw_three_weights


def trajectory(target=0.2):
    """Six steps about the edge 0.5 on a 2-bit grid, as `oscillab.toy.Trajectory` holds them."""
    latent, low, high = np.array([0.45, 0.49, 0.53, 0.37, 0.41, 0.45]), -2, 1
    return SimpleNamespace(
        latent_weight=latent,
        integer_state=np.round(latent).astype(np.int8),
        step_size=1.0,
        low=low,
        high=high,
        target=target,
        edges=lambda: np.arange(low, high) + 0.5,
        frequency=lambda: 0.2,
    )


def test_one_weight_draws_latent_state_edge_and_target():
    """Oracle: the trajectory; edges within a step of it are ±0.5; |0 - 0.2| / 1; a target of 1.5 lies beyond -2..1."""
    axes = draw_one_weight(trajectory()).axes[0]
    drawn = {line.get_label(): line.get_ydata() for line in axes.lines}
    np.testing.assert_allclose(drawn["latent weight w"], trajectory().latent_weight)
    np.testing.assert_array_equal(drawn["quantized q(w)"], [0, 0, 1, 0, 0, 0])
    assert list(drawn["target w* = 0.2"]) == [0.2, 0.2]
    flat = {line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == ":"}
    assert flat == {-0.5, 0.5}
    assert "2 bit: 0.200 oscillations a step; |q(w*) - w*| / s = 0.200" in axes.figure.get_suptitle()
    assert "beyond the grid (-2 to 1)" in draw_one_weight(trajectory(1.5)).get_suptitle()


def test_frequencies_lie_beside_the_closed_form():
    """Oracle: what is given."""
    axes = draw_frequencies([0.1, 0.2], [0.1, 0.2], {0.01: [0.11, 0.19], 0.1: [0.1, 0.2]}).axes[0]
    labels = [line.get_label() for line in axes.lines[1:]]
    assert labels == ["measured, learning rate 0.01", "measured, learning rate 0.1"]
    assert list(axes.lines[1].get_ydata()) == [0.11, 0.19]


def test_three_weights_count_their_flips():
    """Oracle: the states by hand: two flips, none, one."""
    states = {"state_0": [0, 1, 0], "state_1": [1, 1, 1], "state_2": [0, 0, 1]}
    weights = {f"w_{i}": [0.1, 0.2, 0.3] for i in range(3)}
    frame = pd.DataFrame(weights | states | {"weight_step_size": 0.4, "input_step_size": [0.8, 0.7, 0.8]})
    axes = draw_three_weights(frame).axes
    titles = [one.get_title(loc="left") for one in axes[:3]]
    assert titles == ["w_0: 2 flips in 3 steps", "w_1: 0 flips in 3 steps", "w_2: 1 flips in 3 steps"]
    np.testing.assert_allclose(axes[3].lines[0].get_ydata(), [0.4, 0.35, 0.4])
