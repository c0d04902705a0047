"""Is the difference between two methods more than what another seed would have changed?

Methods of one seed share their pictures, and mostly the run itself, so they are compared pair by pair: the difference of
each seed, its mean, its standard deviation, and a t test of the mean against 0.
"""

import numpy as np
import pandas as pd

from .figures.ladder import panels

PAPER_CLAIMS = (  # (method, what it is laid against): the paper's order of methods, and what QC adds to each
    ("ema", "lsq"),
    ("ema+qc", "ema"),
    ("ema+qc", "lsq"),
    ("lsq+qc", "lsq"),
    ("ema", "dampening"),
    ("ema", "freezing"),
    ("dampening", "lsq"),
    ("dampening+qc", "dampening"),
    ("freezing", "lsq"),
    ("freezing+qc", "freezing"),
)
QC_CONTROLS = (  # what might do as well as QC, behind EMA and behind LSQ
    ("ema+qc", "ema+bn_affine"),
    ("ema+qc", "ema+bn_affine_and_biases"),
    ("ema+qc", "ema+bn_reestimation"),
    ("ema+qc", "ema+bias_correction"),
    ("ema+qc", "ema+qc_scale"),
    ("ema+qc", "ema+qc_shift"),
    ("ema+qc", "ema+qc_per_tensor"),
    ("ema+qc", "ema+soft_rounding"),
    ("ema+qc", "per_channel+ema"),
    ("lsq+qc", "lsq+bn_affine"),
    ("lsq+qc", "lsq+bn_reestimation"),
    ("lsq+qc", "lsq+bias_correction"),
    ("lsq+qc", "lsq+soft_rounding"),
    ("lsq+qc", "ema"),
)
CLAIMS = (
    *PAPER_CLAIMS,
    *QC_CONTROLS,
    ("rounded_mask", "lsq"),
    ("rounded_mask+ema", "ema"),
    ("slow_step_sizes", "lsq"),
    ("ema", "slow_step_sizes"),
)


def differences(table, group, method, reference, *, score="map"):
    """`method` minus `reference` of each seed that has both, (n,), of one `Group` of a study's table."""
    rows = group.rows(table)
    by_seed = rows.pivot_table(index="seed", columns="method", values=score)
    if method not in by_seed or reference not in by_seed:
        return np.zeros(0)
    return (by_seed[method] - by_seed[reference]).dropna().to_numpy()


def claims(table, *, score="map", pairs=CLAIMS):
    """A row for each of `pairs` that the table can speak of, by network and bit width.

    Columns: `network`, `width`, `method`, `reference`, `seeds`, `difference` and `spread` (mean and standard deviation over
    seeds, in units of mAP 0..1), `p` (two-sided t test of the paired differences; nan below two seeds), `holds`: "yes" or
    "no" where every seed agrees on the sign, else "unclear".
    """
    rows = []
    for group in panels(table):
        for method, reference in pairs:
            gains = differences(table, group, method, reference, score=score)
            if len(gains):
                rows.append({"network": group.network, "width": group.width} | claim(method, reference, gains))
    return pd.DataFrame(rows)


def claim(method, reference, gains):
    """What a paired comparison came to, as a row."""
    sure = "yes" if (gains > 0).all() else "no" if (gains < 0).all() else "unclear"
    return {
        "method": method,
        "reference": reference,
        "seeds": len(gains),
        "difference": float(gains.mean()),
        "spread": float(gains.std(ddof=1)) if len(gains) > 1 else float("nan"),
        "p": paired_p(gains),
        "holds": sure,
    }


def paired_p(gains):
    """The two-sided p of Student's t test that the mean of `gains` (n,) is 0; nan below two of them or without spread.

    Exact in the number of seeds: P(|T| > t) with n - 1 degrees of freedom is the share of the area under
    cos(angle)^(n - 2) beyond arctan(t / sqrt(n - 1)). With 2 degrees of freedom it is 1 - t / sqrt(2 + t^2):

    >>> float(round(paired_p(np.array([0.01, 0.02, 0.03])), 4)), round(1 - 12**0.5 / 14**0.5, 4)
    (0.0742, 0.0742)
    """
    count, spread = len(gains), np.std(gains, ddof=1) if len(gains) > 1 else 0.0
    if spread == 0:
        return float("nan")
    t = abs(np.mean(gains)) / (spread / count**0.5)
    angle = np.linspace(0.0, np.pi / 2, 20_001)
    density = np.cos(angle) ** (count - 2)
    beyond = angle >= np.arctan(t / (count - 1) ** 0.5)
    return float(np.trapezoid(density * beyond, angle) / np.trapezoid(density, angle))
