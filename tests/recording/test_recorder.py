"""Does recording see every step and nothing else, leave the model alone, and go on where it stopped?"""

import copy
import io
import json
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_module

import oscillab
from oscillab.quant import QuantSpec, quantize
from oscillab.recording.recorder import WINDOW_TICKS, record
from oscillab.recording.snapshot import check_state
from oscillab.recording.tables import count_oscillations, layers, ranges


def small_net(seed=0, **spec):
    """A real quantized network of three convolutions: 8, 3 and 8 bit."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 4, 3), nn.SiLU(), nn.Conv2d(4, 2, 1))
    return quantize(net, QuantSpec(**({"bits": 3} | spec)), [torch.rand(2, 3, 12, 12)]).train()


def train(net, optimizer, steps, *, seed=1):
    """`steps` steps towards random targets, so that weights keep moving; deterministic in `seed`."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        (
            net(torch.rand(2, 3, 12, 12, generator=generator)) - torch.rand(1, generator=generator)
        ).square().mean().backward()
        optimizer.step()


def assert_same(one, other):
    """Fail unless two recordings are equal, value for value."""
    assert one.meta == other.meta
    assert one.arrays.keys() == other.arrays.keys()
    for name in one.arrays:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_equals_the_pure_function_on_the_same_states(fakes, random_states):
    """Oracle: `count_oscillations` on the states that the weights were taken to, over more than one window of time."""
    states = random_states(2 * WINDOW_TICKS + 37, 40, -4, 3)
    _, recording = fakes.run(states, trajectories=40)
    frequency, totals, per_step = count_oscillations(states)
    stem = recording.weights_of("stem")
    np.testing.assert_array_equal(recording["sample_state"][:, :40], states)
    np.testing.assert_array_equal(recording["integer_state"][stem], states[-1])
    np.testing.assert_array_equal(recording["frequency"][stem], frequency)
    np.testing.assert_array_equal(recording["oscillation_count"][stem], totals)
    np.testing.assert_array_equal(recording["layer_oscillation_count"][:, 0], per_step)
    flips = np.diff(states.astype(int), axis=0) != 0
    np.testing.assert_array_equal(recording["flip_count"][stem], flips.sum(0))
    np.testing.assert_array_equal(recording["layer_flip_count"][1:, 0], flips.sum(1))
    assert recording["window_last_tick"].tolist() == [WINDOW_TICKS, 2 * WINDOW_TICKS, len(flips)]
    np.testing.assert_array_equal(
        recording["window_flip_count"][1, stem], flips[WINDOW_TICKS : 2 * WINDOW_TICKS].sum(0)
    )


def test_real_layers_while_they_train():
    """Oracle: the integer states that the test itself reads after every step from a real quantized network."""
    net = small_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    seen = [torch.cat([net[i].integer_state().flatten() for i in (0, 2, 4)])]
    with record(net, optimizer, ranges_every=2) as recorder:
        handle = optimizer.register_step_post_hook(
            lambda *_: seen.append(torch.cat([net[i].integer_state().flatten() for i in (0, 2, 4)]))
        )
        train(net, optimizer, 60)
        handle.remove()
    recording, counted = recorder.recording(), count_oscillations(torch.stack(seen).numpy())
    assert counted.totals.sum() > 30  # the case is not an idle one
    np.testing.assert_array_equal(recording["oscillation_count"], counted.totals)
    np.testing.assert_array_equal(recording["frequency"], counted.frequency)
    assert [about["bits"] for about in recording.layers] == [8, 3, 8]
    assert recording["step_size"][-1, 1] == net[2].weight_step_size()
    assert recording["clip_high"][-1, 1] == net[2].activation_range()[1]
    observed = ranges(recording)
    assert len(observed) == 30 * 3 and observed["observed_high"].notna().all()
    assert (observed.query("layer == '0'")["observed_low"] >= 0).all()  # pixels


def test_forwards_never_tick():
    """Oracle: an invariant; a forward in eval or in training mode is no tick, an optimizer step is one."""
    net = small_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with record(net, optimizer) as recorder:
        net.eval()(torch.rand(1, 3, 12, 12))
        net.train()(torch.rand(1, 3, 12, 12))
        assert recorder.tick_count == 0 and len(recorder.recording().steps) == 1
        train(net, optimizer, 1)
        assert recorder.tick_count == 1
    train(net, optimizer, 1)  # after the block
    assert recorder.tick_count == 1


def test_ranges_come_from_the_forward_before_the_tick():
    """Oracle: inputs by hand: only the forwards between tick 2k - 1 and tick 2k are seen, evaluations are not."""
    net = small_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    with record(net, optimizer, ranges_every=2) as recorder:
        for step in range(1, 5):
            net(torch.full((1, 3, 12, 12), float(step))).sum().backward()
            with torch.no_grad():
                net(torch.full((1, 3, 12, 12), 100.0))
            optimizer.step()
    recording = recorder.recording()
    assert recording["range_step"].tolist() == [2, 4]
    assert recording["observed_high"][:, 0].tolist() == [2.0, 4.0]
    assert recording["clipped_share"][:, 0].tolist() == [1.0, 1.0]  # pixels end at 1


def test_every_k_th_step(fakes):
    """Oracle: the pure function on every third of the states; steps are named as the optimizer counts them."""
    states = np.array([[0], [1], [0], [1], [1], [0], [0], [3], [3], [1]])
    _, recording = fakes.run(states, every=3, trajectories=1)
    assert recording.steps.tolist() == [0, 3, 6, 9]
    assert recording["sample_state"][:, 0].tolist() == [0, 1, 0, 1]
    assert recording["oscillation_count"][0] == count_oscillations(states[::3]).totals[0] == 2


def test_an_average_is_recorded_beside_the_live_model(fakes):
    """Oracle: by hand: the copy moves half as far, and flips when it crosses an edge; two recorders do not mix."""
    live = fakes.Net([[0.0, 0.0]])
    average, ema = copy.deepcopy(live), fakes.Average()
    optimizer = torch.optim.SGD([live.stem.weight], lr=1.0)
    with record(live, optimizer) as recorder, record(average, ema) as other:
        for target in ([0.5, 0.0], [0.0, 0.0], [0.5, 0.0]):
            fakes.step_to(optimizer, live.stem.weight, target)
            with torch.no_grad():
                average.stem.weight.lerp_(live.stem.weight, 0.5)  # 0.25 (a tie: state 0), 0.125, 0.3125 (state 1)
            ema.step()
    assert recorder.recording()["layer_flip_count"][:, 0].tolist() == [0, 1, 1, 1]
    assert other.recording()["layer_flip_count"][:, 0].tolist() == [0, 0, 0, 1]
    assert not ema.hooks


def test_the_model_is_left_alone(fakes):
    """Oracle: keys, copies and pickles of the model while it is recorded are those before; a copy is not recorded."""
    net = small_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    keys, size = list(net.state_dict()), len(pickle.dumps(net))
    hooks = len(torch_module._global_forward_pre_hooks)
    with record(net, optimizer, ranges_every=1) as recorder:
        train(net, optimizer, 2)
        twin = copy.deepcopy(net)
        assert list(net.state_dict()) == keys
        net.zero_grad()
        assert abs(len(pickle.dumps(net)) - size) < 200
        pickle.dumps(optimizer)
        train(twin, torch.optim.SGD(twin.parameters(), lr=0.1), 1)
        assert recorder.tick_count == 2
    assert len(torch_module._global_forward_pre_hooks) == hooks
    assert not optimizer._optimizer_step_post_hooks


def test_no_graph_is_kept():
    """Oracle: nothing in the recorder's state asks for a gradient, though step sizes are parameters."""
    net = small_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with record(net, optimizer, ranges_every=1) as recorder:
        train(net, optimizer, 3)
        held = [
            *recorder.tracker.state_dict().values(),
            *(t for rows in recorder.rows.state_dict() for t in rows.values()),
        ]
    assert len(held) > 10 and not any(tensor.requires_grad for tensor in held)


@pytest.mark.parametrize(("granularity", "stop"), [("per_tensor", 7), ("per_channel", WINDOW_TICKS + 3)])
def test_resuming_gives_the_uninterrupted_recording(granularity, stop):
    """Oracle: the uninterrupted run, value for value; the state goes through a file that is read without running code."""
    total = stop + 13

    def run(steps, state=None):
        net = small_net(weight_granularity=granularity)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        if state:
            net.load_state_dict(state["net"])
            optimizer.load_state_dict(state["optimizer"])
        with record(net, optimizer, ranges_every=4, windows=1) as recorder:
            if state:
                recorder.load_state_dict(state["recorder"])
            for step in steps:
                train(net, optimizer, 1, seed=step)
            file = io.BytesIO()
            parts = {"net": net, "optimizer": optimizer, "recorder": recorder}
            torch.save({name: part.state_dict() for name, part in parts.items()}, file)
        file.seek(0)
        return recorder.recording(), torch.load(file, weights_only=True)

    whole, _ = run(range(total))
    _, state = run(range(stop))
    assert_same(run(range(stop, total), state)[0], whole)
    assert whole["layer_flip_count"].sum() > 0


def test_per_channel_step_sizes():
    """Oracle: mean, least and largest of the layer's own step sizes; the sampled weight has its channel's."""
    net = small_net(weight_granularity="per_channel")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with record(net, optimizer, trajectories={"2": [0, 36, 143]}) as recorder:
        train(net, optimizer, 2)
    recording, step_size = recorder.recording(), net[2].weight_step_size().numpy()  # (4,), 36 weights each
    assert recording["step_size"][-1, 1] == pytest.approx(step_size.mean(), rel=1e-6)
    assert recording["step_size_min"][-1, 1] == step_size.min() and recording["step_size_max"][-1, 1] == step_size.max()
    np.testing.assert_array_equal(recording["sample_step_size"][-1], step_size[[0, 1, 3]])
    np.testing.assert_array_equal(recording["latent_weight"][-1], net[2].weight.detach().flatten()[[0, 36, 143]])
    assert recording["step_sizes"].shape == (1, 4 + 4 + 2)


def test_resuming_with_weights_in_another_order_of_memory():
    """Oracle: a recording that resumes with channels-last weights equals one that keeps the usual order."""

    def run(memory_format, state=None):
        net = small_net().to(memory_format=memory_format)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
        with record(net, optimizer) as recorder:
            if state:
                recorder.load_state_dict(state)
            for _ in range(3):
                train(net, optimizer, 1)
                net[2].weight.data = net[2].weight.data.flip(0)
            return recorder.state_dict(), recorder.recording()

    state, _ = run(torch.contiguous_format)
    recordings = [run(order, state)[1] for order in (torch.contiguous_format, torch.channels_last)]
    assert recordings[0]["layer_flip_count"].sum() > 20
    assert_same(*recordings)


def test_a_weight_that_turns_nan(fakes):
    """Oracle: by hand: the step that brought the NaN is an error in one line, the steps before stay readable."""
    net = fakes.Net([[0.0, 0.0]])
    optimizer = torch.optim.SGD([net.stem.weight], lr=1.0)
    with record(net, optimizer) as recorder:
        fakes.step_to(optimizer, net.stem.weight, [0.5, 0.0])
        with pytest.raises(
            ValueError, match="^1 of 2 weights of layer 'stem' are NaN or infinite, seen after step 2; .*1 rec"
        ):
            fakes.step_to(optimizer, net.stem.weight, [float("nan"), 0.0])
        fakes.step_to(optimizer, net.stem.weight, [0.0, 0.0])  # training may go on; recording has ended
    recording = recorder.recording()
    assert recording["layer_flip_count"][:, 0].tolist() == [0, 1] and "NaN" in recording.meta["stopped"]
    assert layers(recording).loc[0, "flip_rate"] == 0.5


def swap_layer(net, fakes):
    net.stem = fakes.Layer([[0.0, 0.0]])


def swap_block(net, fakes):
    net.block = nn.Sequential(nn.Linear(1, 1), fakes.Layer([[0.0]]))


def swap_weight(net, fakes):
    net.stem.weight = nn.Parameter(torch.zeros(1, 2))


def turn_float(net, fakes):
    net.stem.__class__ = nn.Identity


def spoil_step_size(net, fakes):
    net.block[1].step.fill_(float("nan"))


def split_step_size(net, fakes):
    net.stem.step = torch.full((1, 2), 0.5)


@pytest.mark.parametrize(
    ("swap", "message"),
    [
        (swap_layer, "^layer 'stem' was replaced during recording .FakeLayer became FakeLayer."),
        (swap_block, "^layer 'block' was replaced"),
        (swap_weight, "^the weight of layer 'stem' was replaced by another"),
        (turn_float, "^layer 'stem' changed its class during recording .FakeLayer became Identity."),
        (spoil_step_size, "^the weight step size of layer 'block.1' is NaN or infinite"),
        (split_step_size, "^layer 'stem' had 1 step size.s. on cpu, has 2"),
    ],
)
def test_a_swapped_layer(fakes, swap, message):
    """Oracle: one line that names the layer; what was recorded before stays readable, hooks are off."""
    net = fakes.Net([[0.0, 0.0]])
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    with record(net, optimizer) as recorder:
        optimizer.step()
        swap(net, fakes)
        with pytest.raises(ValueError, match=message) as caught:
            optimizer.step()
    assert "\n" not in str(caught.value) and recorder.recording().meta["tick_count"] == 1
    assert not optimizer._optimizer_step_post_hooks


def test_an_optimizer_that_does_not_own_the_weights(fakes):
    """Oracle: one line that says which optimizer it should be; one that owns some of the weights is taken."""
    net = fakes.Net([[0.0]])
    with pytest.raises(ValueError, match="the optimizer .SGD. owns the weights of none of the 2 layers"):
        record(net, torch.optim.SGD(copy.deepcopy(net).parameters(), lr=1.0))
    with pytest.raises(ValueError, match="owns the weights of none"):
        record(net, torch.optim.SGD(net.block[0].parameters(), lr=1.0))
    with pytest.raises(ValueError, match="must have register_step_post_hook.*object has not"):
        record(net, object())
    record(net, torch.optim.SGD([net.stem.weight], lr=1.0))
    with pytest.raises(ValueError, match=r"no layer of this Conv2d has integer_state\(\), .*quantize"):
        record(nn.Conv2d(1, 1, 1), fakes.Average())


def test_a_state_of_another_recorder(fakes):
    """Oracle: the error names what differs."""
    net = fakes.Net([[0.0, 0.0]])
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    with record(net, optimizer) as recorder:
        state = recorder.state_dict()
    for options, message in (
        ({"momentum": 0.1}, "other settings: momentum is 0.01 there and 0.1 here"),
        ({"trajectories": 1}, "other trajectories"),
    ):
        with record(net, optimizer, **options) as other, pytest.raises(ValueError, match=message):
            other.load_state_dict(state)
    wider = fakes.Net([[0.0, 0.0, 0.0]])
    with record(wider, fakes.Average()) as other, pytest.raises(ValueError, match="other layers: stem is"):
        other.load_state_dict(state)


def test_used_out_of_order(fakes):
    """Oracle: the errors say how a recorder is used."""
    net = fakes.Net([[0.0]])
    recorder = record(net, fakes.Average())
    for call in (recorder.recording, recorder.state_dict, recorder.bytes_per_weight):
        with pytest.raises(ValueError, match="use `with record"):
            call()
    with recorder:
        pass
    with pytest.raises(ValueError, match="records once"), recorder:
        pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 0}, "momentum must be above 0 and at most 1, got 0"),
        ({"momentum": 2}, "momentum must be above 0 and at most 1, got 2"),
        ({"threshold": -1}, "threshold must be 0 or more, got -1"),
        ({"every": 0}, "every must be 1 or more, got 0"),
        ({"ranges_every": -1}, "ranges_every must be 0 or more, got -1"),
        ({"windows": 0}, "windows must be 1 or more, got 0"),
        ({"ranks_every": -1}, "ranks_every must be 0 or more, got -1"),
    ],
)
def test_settings_that_make_no_sense(fakes, options, message):
    """Oracle: the error names what was given and what is allowed."""
    with pytest.raises(ValueError, match=message):
        record(fakes.Net([[0.0]]), fakes.Average(), **options)


def test_totals_are_the_sum_of_the_windows(fakes, random_states):
    """Oracle: the states themselves, 600 ticks in at most two windows, the last of them not yet closed."""
    states = random_states(601, 30, -8, 7)
    _, recording = fakes.run(states, bits=4, windows=2)
    flips = (np.diff(states.astype(int), axis=0) != 0).sum(0)
    np.testing.assert_array_equal(recording["window_flip_count"].sum(0)[:30], flips)
    np.testing.assert_array_equal(recording["flip_count"][:30], flips)
    assert recording["window_first_tick"].tolist() == [1, 251, 501]
    assert recording["window_last_tick"].tolist() == [250, 500, 600]


def test_a_snapshot_does_not_move(fakes):
    """Oracle: a copy of its arrays, taken before three more steps."""
    net = fakes.Net([[0.0, 0.0]])
    optimizer = torch.optim.SGD([net.stem.weight], lr=1.0)
    with record(net, optimizer) as recorder:
        fakes.step_to(optimizer, net.stem.weight, [0.5, 0.0])
        early = recorder.recording()
        before = {name: array.copy() for name, array in early.arrays.items()}
        for target in ([0.0, 0.0], [0.5, 0.5], [0.0, 0.0]):
            fakes.step_to(optimizer, net.stem.weight, target)
    for name, array in before.items():
        np.testing.assert_array_equal(early[name], array, err_msg=name)
    assert recorder.recording()["flip_count"].tolist() == [4, 2, 0, 0]


def test_histograms_are_of_the_start_and_of_the_end(fakes):
    """Oracle: by hand: two weights begin on state 0 and end on states 1 and -2, cells are 40 to a bin from -5 on."""
    _, recording = fakes.run([[0, 0], [1, -2]])
    assert np.flatnonzero(recording["position_count_first"][: 9 * 40]).tolist() == [5 * 40]
    assert np.flatnonzero(recording["position_count"][: 9 * 40]).tolist() == [3 * 40, 6 * 40]


def test_training_after_the_block_does_not_show(fakes):
    """Oracle: the positions at the end of the block, though weights moved on before the recording was read."""
    net = fakes.Net([[0.0, 0.0]])
    with record(net, fakes.Average()) as recorder:
        pass
    inside = recorder.recording()["position_count"]
    net.stem.weight.data.fill_(1.5)
    np.testing.assert_array_equal(recorder.recording()["position_count"], inside)


def test_meta_says_what_the_arrays_mean(fakes):
    """Oracle: what the test asked for; all of it fits into JSON."""
    recorder, recording = fakes.run([[0], [1]], momentum=0.1, threshold=0.02, seed=3)
    meta = json.loads(json.dumps(recording.meta))
    assert meta == recording.meta
    assert (meta["momentum"], meta["threshold"], meta["seed"], meta["step_count"]) == (0.1, 0.02, 3, 1)
    assert meta["versions"]["oscillab"] == oscillab.__version__ and meta["stopped"] is None
    assert meta["layers"][0] == {
        "name": "stem", "shape": [1, 1], "bits": 3, "low": -4, "high": 3, "step_count": 1, "has_range": True,
        "has_gradient": [False, False],
    }  # fmt: skip


def test_a_state_of_another_version(fakes):
    """Oracle: the error names both versions; the same state is taken as it is."""
    net = fakes.Net([[0.0]])
    with record(net, fakes.Average()) as recorder:
        state = recorder.state_dict()
        check_state(recorder, state)
        with pytest.raises(ValueError, match="a recorder of other version: 7 and 1"):
            recorder.load_state_dict(state | {"version": 7})


def test_a_state_from_before_gradients_were_recorded(fakes):
    """Oracle: the states of the weights come back, and no gradient has turned."""
    net = fakes.Net([[0.0, 0.0]])
    optimizer = torch.optim.SGD([net.stem.weight], lr=1.0)
    with record(net, optimizer) as recorder:
        fakes.step_to(optimizer, net.stem.weight, [0.5, 0.0])
        state = recorder.state_dict()
    del state["gradient_signs"]
    with record(net, optimizer) as other:
        other.load_state_dict(state)
        fakes.step_to(optimizer, net.stem.weight, [0.0, 0.0])
    assert other.recording()["flip_count"].tolist() == [2, 0, 0, 0]
