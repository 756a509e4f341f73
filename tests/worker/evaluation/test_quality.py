import numpy as np
import orjson
import pytest

from tests.worker.evaluation.small import log_of, plan_of, random_shop, shop_of
from worker.evaluation.algorithms import ALGORITHMS, OWN_MODEL
from worker.evaluation.context import LISTS
from worker.evaluation.quality import held_out_quality
from worker.evaluation.splits import cut, hold_out_next


def quality_of(part, folder, *, fit=ALGORITHMS[OWN_MODEL].fit, **options):
    return held_out_quality(
        part, fit=fit, shop=shop_of(part), plan=plan_of(part), folder=folder, **options
    )


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    path = tmp_path_factory.mktemp("shop") / "orders"
    log = random_shop(path, users=300, restaurants=60, orders=6000, seed=7)
    start = cut(log, train_share=0.8, validation_share=0).test_from
    return hold_out_next(log, is_active=np.ones(60, np.bool_), start=start)[0]


def test_the_baseline_stands_beside_each_list(part, tmp_path):
    quality = quality_of(part, tmp_path, seed=1)
    orjson.dumps(quality)
    assert quality["for_you"]["targets"] == np.count_nonzero(part.orders)
    assert 0 < quality["discover"]["targets"] < quality["for_you"]["targets"]
    for list_name in LISTS:
        baseline = quality[list_name]["baseline"]
        assert baseline["algorithm"] == "popularity-city"
        assert baseline["targets"] == quality[list_name]["targets"]
        low, high = quality[list_name]["intervals"]["ndcg_at_20"]
        assert low <= quality[list_name]["ndcg_at_20"] <= high
    # The generated users go back to where they were.
    assert quality["for_you"]["ndcg_at_20"] > quality["for_you"]["baseline"]["ndcg_at_20"]


def test_a_bounded_number_of_users_is_ranked(part, tmp_path):
    asked = []

    def fit(matrix, context):
        asked.append(len(context.histories.user_ids))
        return ALGORITHMS[OWN_MODEL].fit(matrix, context)

    one = quality_of(part, tmp_path, fit=fit, seed=1, max_users=50)
    assert asked == [50]
    assert one["for_you"]["targets"] == 50
    assert one == quality_of(part, tmp_path, seed=1, max_users=50)
    assert one != quality_of(part, tmp_path, seed=2, max_users=50)


def test_without_targets_there_are_zeros(tmp_path):
    log = log_of(tmp_path / "orders", [(1, 10, 5)], users=[1], restaurants=[10])
    part, _ = hold_out_next(log, is_active=np.ones(1, np.bool_), start=5)
    quality = quality_of(part, tmp_path, seed=1)
    assert quality["users"] == 0
    assert quality["discover"]["ndcg_at_20"] == quality["discover"]["baseline"]["ndcg_at_20"] == 0
