import pytest
import torch

from vggtransfer.errors import OptionError
from vggtransfer.training.sampling import batch_geometry, epoch_order, epoch_passes, keyed_seed


def test_orders_are_permutations_that_depend_on_seed_and_epoch():
    orders = [epoch_order(50, seed=seed, epoch=epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert epoch_order(50, seed=1, epoch=1) == orders[3]


def test_weighted_draws_balance_the_classes():
    weights = torch.tensor([1.0] * 900 + [9.0] * 100)
    drawn = epoch_order(1000, seed=0, epoch=0, weights=weights)
    assert 430 < sum(index >= 900 for index in drawn) < 570


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_passes_hold_the_same_pictures_for_any_number_of_processes(processes):
    order = epoch_order(30, seed=0, epoch=3)
    shares = [
        epoch_passes(order, epoch=3, size=8 // processes, rank=rank, processes=processes) for rank in range(processes)
    ]
    assert {len(share) for share in shares} == {3}
    for number in range(3):
        together = [key for share in shares for key in share[number]]
        assert sorted(together) == sorted((3, index) for index in order[8 * number : 8 * number + 8])


def test_geometry():
    assert batch_geometry(100, batch_size=32, accumulate=1, processes=2) == (16, 3)
    assert batch_geometry(100, batch_size=16, accumulate=2, processes=1) == (16, 3)
    assert batch_geometry(21, batch_size=32, accumulate=1, processes=2) == (10, 1)
    with pytest.raises(OptionError, match="--batch-size 33"):
        batch_geometry(100, batch_size=33, accumulate=1, processes=2)
    with pytest.raises(OptionError, match="--accumulate 8"):
        batch_geometry(100, batch_size=16, accumulate=8, processes=1)


def test_keyed_seeds_differ():
    assert len({keyed_seed("step", *parts) for parts in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]}) == 4
    assert keyed_seed("a", 1) == keyed_seed("a", 1)
