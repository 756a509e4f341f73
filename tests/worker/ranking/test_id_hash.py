import numpy as np

from worker.ranking.id_hash import hash_ids

IDS = np.concatenate([np.arange(20_000), 2**63 - 1 - np.arange(20_000)])


def test_ids_that_count_up_are_spread_evenly():
    for salt in (1, 2):
        hashes = hash_ids(IDS, salt=salt)
        assert len(np.unique(hashes)) == len(IDS)
        for bit in (0, 1, 31, 63):
            share = np.mean(hashes >> np.uint64(bit) & np.uint64(1))
            assert abs(share - 0.5) < 0.02


def test_salts_have_nothing_to_do_with_each_other():
    one, two = (hash_ids(IDS, salt=salt) & np.uint64(1) for salt in (1, 2))
    assert abs(np.mean(one == two) - 0.5) < 0.02


def test_it_is_splitmix64():
    """The first numbers of the published generator with the seeds 0 and 1."""
    first = hash_ids(np.array([0, 1]), salt=0).tolist()
    assert first == [0xE220A8397B1DCDAF, 0x910A2DEC89025CC1]
    assert hash_ids(np.array([0]), salt=1).tolist() == [0x6E789E6AA1B965F4]
