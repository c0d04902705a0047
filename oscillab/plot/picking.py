"""Which layers and which weights can be picked, and how restless is each?

Two maps of buttons over a recording: a network's layers in the order of its stages, and a layer's weights with a recorded
course. Something is always chosen where there is something to choose: what flips most, until a click says otherwise.
"""

from oscillab.recording.tables import LOW_BITS, chosen_layers

from .button_map import ButtonMap, stages
from .layer_view import flip_rates_at, sampled_weights


class LayerMap(ButtonMap):
    """The layers of a recording, coloured by the share of their weights that flips in a step; `value`: a layer's name."""

    def __init__(self):
        super().__init__("of a layer's weights flip in a step")

    def fill(self, recording, step):
        """Show the recording's layers as they flip in the steps before `step`."""
        rates = flip_rates_at(recording, step)
        self.lay_out(stages(recording.layer_names))
        low = chosen_layers(recording, LOW_BITS) or recording.layer_names
        top = max(rates[name] for name in low)
        self.note = "8-bit layers flip more: they are off the scale." if max(rates.values()) > top else ""
        self.paint(rates, top=top)
        if self.value is None:
            self.value = max(low, key=rates.get)


class WeightMap(ButtonMap):
    """The sampled weights of a layer, coloured by how often they flip; `value`: a weight's flat index, as text."""

    def __init__(self):
        super().__init__("of the steps the weight flips in")

    def fill(self, recording, layer):
        """Show the layer's sampled weights, or a sentence where none has a recorded course."""
        try:
            weights = sampled_weights(recording, layer)
        except ValueError:
            self.note = f"No weight of {layer} can be picked: none has a recorded course."
            return self.lay_out({})
        total = recording.weight_counts[recording.index(layer)]
        self.note = f"Of {total:,} weights these {len(weights)} have a recorded course and can be picked."
        flips, ticks = recording["flip_count"][recording.weights_of(layer)], max(1, recording.meta["tick_count"])
        if set(map(str, weights)) != set(self.buttons):  # their order is that of the first method that is shown
            self.lay_out({f"weight {one}": {str(one): flip_words(flips[one])} for one in weights})
        for one in weights:
            self.buttons[str(one)].description = flip_words(flips[one])
        self.paint({str(one): flips[one] / ticks for one in weights})
        if self.value is None:
            self.value = str(weights[0])
        return None


def flip_words(count):
    """A number of flips in words.

    >>> flip_words(1), flip_words(2)
    ('1 flip', '2 flips')
    """
    return f"{count} flip{'s' if count != 1 else ''}"
