"""The seeds of an export: all different, and the same for ever."""

import pytest

from dfmgan_hf.export import candidate_seed
from dfmgan_hf.export.seeds import MAX_ATTEMPTS, MAX_IMAGES


def test_all_candidates_of_an_export_have_different_seeds():
    seeds = {candidate_seed(0, index, attempt) for index in range(2000) for attempt in range(20)}
    assert len(seeds) == 40_000
    assert min(seeds) >= 0
    assert max(seeds) < 2**32
    # At the far ends of the numbers too.
    ends = [(0, 0), (MAX_IMAGES - 1, 0), (0, MAX_ATTEMPTS - 1), (MAX_IMAGES - 1, MAX_ATTEMPTS - 1)]
    assert len({candidate_seed(5, *end) for end in ends}) == 4


def test_base_seeds_do_not_overlap():
    """As `base_seed + i` would: a test set drawn with seed 1 would be a training set drawn with seed 0."""
    sets = [{candidate_seed(base, index, 0) for index in range(1000)} for base in (0, 1, 2**32 - 1)]
    assert not sets[0] & sets[1]
    assert not sets[0] & sets[2]


def test_seeds_stay_what_they_are():
    """Else an export of an earlier version could not be repeated."""
    assert [candidate_seed(0, index, 0) for index in range(3)] == [2435115482, 1703196208, 1271156014]
    assert candidate_seed(7, 99_999, 3) == 557960804


@pytest.mark.parametrize(("index", "attempt"), [(-1, 0), (2**20, 0), (0, -1), (0, 2**12)])
def test_out_of_range(index, attempt):
    with pytest.raises(ValueError, match="`index` must be from 0 to 1048575"):
        candidate_seed(0, index, attempt)
