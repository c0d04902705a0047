"""Where does the time of a training step go: data, forward, backward, optimizer, quantizers or recorder?

A step in `every` is timed, phase by phase. On an accelerator, which works behind the program, each phase of such a step
waits for the work it gave; the steps between pay a comparison a phase. Phases may lie in one another (a quantizer in the
forward, the recorder in the optimizer's step): a second counts for the innermost alone, so that they add up.
"""

import time
from contextlib import contextmanager, nullcontext

import torch

from oscillab.quant.calibrate import quantizers

REST = "rest"  # the progress bar and what else lies between the phases
WARM_UP = 1  # the first step of a run, which sets things up, is not timed


class StepClock:
    """The mean seconds that a step spends in each phase, by every `every`-th step; 0 times none.

    The standard 17 has no factor in common with what training does at every tenth or twentieth step (ranges, logs).
    `now` tells the time in seconds.
    """

    def __init__(self, every=17, *, device=None, now=time.perf_counter):
        if every < 0:
            raise ValueError(f"time_every must be 0 or more steps, got {every}")
        self.every, self.device, self.now = every, device, now
        self.step_count = 0  # steps that were timed
        self._seconds, self._seen = {}, 0
        self._phases, self._step, self._since = [], {}, 0.0

    def steps(self, batches, *, model=None):
        """`batches` one by one; a step lasts from asking for its batch until asking for the next.

        `model`: its quantizers become a phase of their own, by hooks that are there for timed steps alone.
        """
        batches = iter(batches)
        while True:
            timed = bool(self.every) and self._seen % self.every == WARM_UP % self.every
            with self._watching(model) if timed else nullcontext():
                self._begin(timed)
                with self.phase("data"):
                    batch = next(batches, None)
                if batch is None:
                    self._phases.clear()
                    return
                self._seen += 1
                try:
                    yield batch
                except GeneratorExit:  # the run ends in the middle of its epoch
                    self._phases.clear()
                    raise
                self._end()

    def phase(self, name):
        """A block whose time counts for `name`."""
        return self._counted(name) if self._phases else nullcontext()

    def timed(self, owner, name):
        """`owner`, an optimizer or an average, for those that hook on to its steps: what their hooks take is `name`."""
        return _Timed(owner, self, name)

    def seconds(self):
        """The mean seconds of a timed step by phase, the longest first; empty before the first."""
        pairs = sorted(self._seconds.items(), key=lambda pair: -pair[1])
        return {name: total / self.step_count for name, total in pairs}

    def text(self):
        """The phases in one line; empty where no step was timed."""
        seconds = self.seconds()
        total = sum(seconds.values())
        shares = ", ".join(f"{name} {value / total:.1%}" for name, value in seconds.items())
        return f"a step takes {total:.3g} s: {shares} ({self.step_count} steps timed)" if seconds else ""

    def enter(self, name):
        """From now on time counts for `name`."""
        if self._phases:
            self._settle()
            self._phases.append(name)

    def leave(self):
        """From now on time counts for the phase before."""
        if len(self._phases) > 1:
            self._settle()
            self._phases.pop()

    @contextmanager
    def _counted(self, name):
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    def _begin(self, timed):
        self._phases = [REST] if timed else []
        self._step, self._since = {}, self._time() if timed else 0.0

    def _end(self):
        if self._phases:
            self._settle()
            self.step_count += 1
            for name, seconds in self._step.items():
                self._seconds[name] = self._seconds.get(name, 0.0) + seconds
            self._phases.clear()

    def _settle(self):
        """None; the time since the last change counts for the innermost phase."""
        now = self._time()
        self._step[self._phases[-1]] = self._step.get(self._phases[-1], 0.0) + now - self._since
        self._since = now

    def _time(self):
        if self.device is not None and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.now()

    @contextmanager
    def _watching(self, model):
        handles = []
        for module in quantizers(model).values() if model is not None else ():
            handles.append(module.register_forward_pre_hook(self._in))
            handles.append(module.register_forward_hook(self._out))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _in(self, *_):
        self.enter("quantizers")

    def _out(self, module, inputs, output):
        """None; ends the forward, and has the quantizer's own node of the graph timed when its gradient is taken."""
        self.leave()
        if output.grad_fn is not None and module.enabled:
            output.grad_fn.register_prehook(self._in)
            output.grad_fn.register_hook(lambda *_: self.leave())


class _Timed:
    """An optimizer whose step hooks are timed; all else is the optimizer's."""

    def __init__(self, owner, clock, name):
        self._owner, self._clock, self._name = owner, clock, name

    def register_step_post_hook(self, hook):
        """The handle of `hook`."""

        def call(*arguments):
            with self._clock.phase(self._name):
                return hook(*arguments)

        return self._owner.register_step_post_hook(call)

    def __getattr__(self, name):
        return getattr(self._owner, name)
