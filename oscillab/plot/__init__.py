"""Figures, widgets and the report. `live` watches a training run in a notebook."""


def live(recorders):
    """A widget of loss, flips and step sizes of a run while it goes on, with a Stop button: `await live.fit(trainer)`.

    `recorders`: a Recorder, or method -> Recorder, already entered; see `oscillab.plot.running.Live`.
    """
    from .running import Live

    return Live(recorders)
