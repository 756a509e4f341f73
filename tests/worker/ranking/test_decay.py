import math

import numpy as np
import pytest

from worker.ranking.decay import decay


def test_half_is_left_after_each_half_life():
    weights = decay(np.array([0, 90, 180, 45]), half_life_days=90)
    assert weights.tolist() == pytest.approx([1, 0.5, 0.25, 2**-0.5])


def test_an_order_from_the_future_counts_as_new():
    assert decay(np.array([-1000.0]), half_life_days=90).tolist() == [1]


def test_no_age_takes_all_weight_away():
    weights = decay(np.array([1e6, 1e9]), half_life_days=1)
    assert (weights == np.float32(2.0**-64)).all()


def test_an_infinite_half_life_takes_nothing_away():
    assert decay(np.array([0.0, 1e9]), half_life_days=math.inf).tolist() == [1, 1]
