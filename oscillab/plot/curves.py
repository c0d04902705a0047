"""What can be read from a run while it goes on, cheaply?

`Curves` takes the rows that recorders have added since it last looked; nothing of what they hold per weight is copied.
"""

import numpy as np

from .style import method_style

LOW_BITS = 4  # as in the study's tables: 8-bit ends would only dilute
SPREAD = (0.1, 0.5, 0.9)  # quantiles over layers


class Curves:
    """Loss, flips and step sizes of recorders (method -> Recorder) over the steps so far.

    `loss` is (steps, values); `flips[method]` is (steps, share of the low-bit weights that flipped in the step);
    `step_sizes[method]` is (steps, quantiles (3,) over the low-bit layers of step size / first step size).
    Raises ValueError for a recorder whose block was not entered, an unknown method, or one without low-bit layers.
    """

    def __init__(self, recorders):
        self.recorders = recorders
        self.loss, self.flips, self.step_sizes = ([], []), {}, {}
        self._seen, self._layers, self._first = {}, {}, {}
        for method, recorder in recorders.items():
            method_style(method)
            recorder.bytes_per_weight()  # raises where nothing is recorded yet
            self._layers[method] = low_bit_layers(recorder)
            self._seen[method], self.flips[method], self.step_sizes[method] = (0, 0, 0), ([], []), ([], [])

    def add_loss(self, step, loss):
        """Note the loss of a step."""
        self.loss[0].append(step)
        self.loss[1].append(loss)

    def read(self):
        """Take what the recorders have added since the last call."""
        for method, recorder in self.recorders.items():
            seen, self._seen[method] = self._seen[method], recorder.rows.counts()
            self._add(method, recorder.rows.arrays(seen))

    def _add(self, method, rows):
        chosen, weight_count = self._layers[method]
        sizes = np.abs(rows["step_size"][:, chosen])
        first = self._first.setdefault(method, sizes[:1])
        shares = rows["layer_flip_count"][:, chosen].sum(1) / weight_count / self.recorders[method].settings.every
        steps = rows["step"].tolist()
        self.flips[method][0].extend(steps)
        self.flips[method][1].extend(shares.tolist())
        self.step_sizes[method][0].extend(steps)
        self.step_sizes[method][1].extend(np.quantile(sizes / first, SPREAD, axis=1).T.tolist())


def low_bit_layers(recorder):
    """The places of the recorder's layers of at most 4 bits (or of unknown bits), and the number of their weights."""
    layers = recorder.layers.layers
    chosen = [i for i, layer in enumerate(layers) if layer.bits is None or layer.bits <= LOW_BITS]
    if not chosen:
        raise ValueError(f"nothing to watch: none of the {len(layers)} recorded layers has at most {LOW_BITS} bits")
    return chosen, sum(int(np.prod(layers[i].shape)) for i in chosen)


def thinned(steps, values, most=300):
    """Steps and values as arrays of at most `most` points, each the mean of as many neighbours.

    >>> thinned([1, 2, 3, 4], [1.0, 3.0, 5.0, 7.0], most=2)
    (array([1.5, 3.5]), array([2., 6.]))
    """
    steps, values = np.asarray(steps, float), np.asarray(values, float)
    width = -(-len(steps) // most) if len(steps) else 1
    whole = len(steps) // width * width
    return (
        steps[:whole].reshape(-1, width).mean(1),
        values[:whole].reshape(-1, width, *values.shape[1:]).mean(1),
    )
