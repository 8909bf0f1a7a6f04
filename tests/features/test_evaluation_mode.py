from __future__ import annotations

import pytest
from torch import nn

from vggtransfer.features.evaluation_mode import evaluation_mode


@pytest.mark.parametrize("fails", [False, True])
def test_every_module_is_afterwards_as_it_was(fails: bool) -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm2d(3), nn.Dropout()))
    model[1][0].eval()  # a part in a mode of its own
    before = [module.training for module in model.modules()]
    assert set(before) == {True, False}
    try:
        with evaluation_mode(model):
            assert not any(module.training for module in model.modules())
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert [module.training for module in model.modules()] == before
