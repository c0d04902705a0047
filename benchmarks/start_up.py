"""How long does a notebook wait before its first own line?

    python -m benchmarks.start_up

Seconds of `import oscillab` and of what notebooks import beside it, each in a fresh process, `rounds` times; and what the
first quantized forward pass adds where the kernel has to be compiled.
"""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass

import numpy as np
import tyro

STATEMENTS = {
    "import torch": "import torch",
    "import oscillab": "import oscillab",
    "oscillab, its plots and widgets": "import oscillab, oscillab.plot.figures, oscillab.plot.widgets",
    "oscillab, kernel in its cache": "import oscillab; from oscillab.quant.kernel import loaded; loaded()",
    "oscillab, kernel compiled": "import oscillab; from oscillab.quant.kernel import loaded; loaded()",
}


@dataclass(frozen=True)
class Options:
    """How often."""

    rounds: int = 5


def seconds_of(statement, *, empty_cache):
    """Processor seconds of a fresh Python that runs the statement, its compiler's included."""
    before = os.times()
    with tempfile.TemporaryDirectory() as folder:
        extra = {"OSCILLAB_CACHE": folder} if empty_cache else {}
        subprocess.run([sys.executable, "-c", statement], check=True, env={**os.environ, **extra})
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main(options):
    """Print the table."""
    for name, statement in STATEMENTS.items():
        taken = [seconds_of(statement, empty_cache="compiled" in name) for _ in range(options.rounds)]
        low, median, high = np.quantile(taken, [0.25, 0.5, 0.75])
        print(f"{name:34s} {median:6.2f} s  ({low:.2f} .. {high:.2f})")


if __name__ == "__main__":
    main(tyro.cli(Options))
