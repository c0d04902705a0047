"""Differences between methods: pairs by seed, and a t test whose values are in every textbook."""

import numpy as np
import pytest

from oscillab.study.figures.ladder import panels
from oscillab.study.paired import claims, differences, paired_p


@pytest.mark.parametrize("count, t, p", [(2, 12.706, 0.05), (3, 4.303, 0.05), (5, 2.132, 0.10), (11, 2.228, 0.05)])
def test_p_of_students_t(count, t, p):
    """Oracle: the printed table of Student's t, two-sided, n - 1 degrees of freedom (three decimals of t)."""
    gains = np.linspace(-1, 1, count)
    gains = gains / gains.std(ddof=1) / count**-0.5  # spread / sqrt(n) is 1
    assert paired_p(gains + t) == pytest.approx(p, abs=2e-4)
    assert paired_p(-gains - t) == pytest.approx(p, abs=2e-4)


def test_p_needs_two_seeds_and_a_spread():
    """Oracle: a t test of one difference, or of equal ones, has no answer."""
    assert np.isnan(paired_p(np.array([0.1]))) and np.isnan(paired_p(np.array([0.1, 0.1])))


def test_differences_are_those_of_each_seed(table):
    """Oracle: the table's EMA lies 0.1 above LSQ for both seeds; a method that is missing gives no difference."""
    group = panels(table)[0]
    assert differences(table, group, "ema", "lsq") == pytest.approx([0.1, 0.1])
    assert len(differences(table, group, "freezing", "lsq")) == 0


def test_claims_say_where_seeds_disagree(table):
    """Oracle: hand-set values, EMA better in both seeds, QC better in one and worse in the other."""
    table = table.copy()
    table.loc[(table.method == "ema+qc") & (table.seed == 1), "map"] = 0.35
    rows = claims(table).set_index(["width", "method", "reference"])
    assert rows.loc[("4", "ema", "lsq"), "holds"] == "yes" and rows.loc[("4", "ema", "lsq"), "seeds"] == 2
    unsure = rows.loc[("4", "ema+qc", "ema")]
    assert unsure["holds"] == "unclear" and unsure["difference"] == pytest.approx((0.1 - 0.06) / 2)
