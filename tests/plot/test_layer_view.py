"""Does the view of a layer show the picked weight at the chosen step?"""

import numpy as np
import pytest

from oscillab.plot.layer import flip_map
from oscillab.plot.layer_view import coarse, draw_layer_view, flip_rates_at, sampled_weights


def test_sampled_weights_come_by_flips(live):
    """Oracle: the counts of the recording at the sampled places."""
    where, chosen = live.weights_of("middle"), sampled_weights(live, "middle")
    flips = live["flip_count"][where][chosen].tolist()
    assert len(chosen) == 4 and flips == sorted(flips, reverse=True)
    assert set(np.array(chosen) + where.start) <= set(live["sample_index"].tolist())


def test_the_trajectory_is_that_of_the_weight_around_the_step(live):
    """Oracle: the recorded latent weight over the step size, from 75 steps before to 75 after; a line at the step."""
    weight = sampled_weights(live, "middle")[1]
    figure = draw_layer_view({"run": ("lsq", live)}, "middle", weight=weight, step=40)
    panel = next(axes for axes in figure.axes if axes.get_ylabel() == "w / s")
    column = live["sample_index"].tolist().index(weight + live.weights_of("middle").start)
    drawn = next(line for line in panel.lines if line.get_linewidth() == 1.5)
    np.testing.assert_allclose(drawn.get_xdata(), np.arange(0, 116))
    np.testing.assert_allclose(drawn.get_ydata(), (live["latent_weight"] / live["sample_step_size"])[:116, column])
    assert [40, 40] in [list(line.get_xdata()) for line in panel.lines]


def test_what_cannot_be_drawn_is_a_sentence(live, make_recording):
    """Oracle: the documented errors: no trajectory, unknown or unlike layers, a weight not sampled, no positions."""
    other, blind = make_recording(names=("first", "last")), make_recording(positions=False)
    for runs, layer, weight, words in (
        ([live.thinned(trajectories=False)], "middle", None, "no weight of layer 'middle' has a recorded trajectory"),
        ([live], "centre", None, "unknown layer 'centre'"),
        ([live, other], "first", None, "a and b cannot be compared: they record 3 and 2 unlike layers"),
        ([live], "middle", 99, "weight 99 of layer 'middle' has no recorded trajectory"),
        ([blind], "middle", None, "latent weights of layer 'middle' were not recorded"),
    ):
        with pytest.raises(ValueError, match=words):
            draw_layer_view({name: ("lsq", run) for name, run in zip("ab", runs, strict=False)}, layer, weight=weight)


def test_flip_rates_are_those_of_the_steps_before(live):
    """Oracle: the mean of the recorded counts over steps 31 to 80, and over step 1 alone at the start."""
    rates = flip_rates_at(live, 80)
    expected = live["layer_flip_count"][31:81].mean(0) / live.weight_counts
    np.testing.assert_allclose(list(rates.values()), expected)
    first = live["layer_flip_count"][1] / live.weight_counts
    np.testing.assert_allclose(list(flip_rates_at(live, 0).values()), first)


def test_a_coarse_map_keeps_the_mean():
    """Oracle: by hand; blocks of equal size have the mean of the whole; a small map stays as it is."""
    values = np.arange(96.0 * 4).reshape(96, 4)
    assert coarse(values).shape == (48, 4) and coarse(values).mean() == values.mean()
    assert (coarse(values[:10]) == values[:10]).all()
    assert coarse(np.array([[1.0, 3.0, 5.0]]), most=2).tolist() == [[2, 5]]


def test_two_runs_share_colours_and_axes(live, average):
    """Oracle: a column each, titled by run and method; the largest cell of the restless run is the top of both scales."""
    figure = draw_layer_view({"a": ("lsq", live), "b": ("ema", average)}, "middle")
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]
    assert titles == ["a, LSQ", "b, EMA"] and sum(axes.get_ylabel() == "w / s" for axes in figure.axes) == 2
    clims = {axes.images[0].get_clim() for axes in figure.axes if axes.images}
    assert clims == {(0, coarse(flip_map(live, "middle")).max())}
    panels = [axes for axes in figure.axes if axes.get_ylabel() == "step size s"]
    assert panels[0].get_ylim() == panels[1].get_ylim() and panels[0].get_xlim() == panels[1].get_xlim()
