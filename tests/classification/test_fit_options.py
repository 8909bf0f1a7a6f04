"""Tests for vggtransfer.classification.fit_options."""

import inspect
from typing import Any

import pytest

from vggtransfer.classification.fit_options import check_recipe, chosen_augmentation, chosen_margin
from vggtransfer.classification.recipe import finetune
from vggtransfer.errors import OptionError

DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(finetune).parameters.items()}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "mirror"),
        ({"unfreeze": "none"}, "mirror"),
        ({"unfreeze": "none block5@2 block4-block5@6"}, "mirror"),
        ({"unfreeze": "none block5@2 all@6"}, "standard"),
        ({"unfreeze": "conv3_3-block5"}, "standard"),
        ({"unfreeze": "all"}, "standard"),
        ({"weights": "none"}, "standard"),
        ({"views": 8}, "standard"),
        ({"mixup": 0.2}, "standard"),
        ({"cutmix": 1.0}, "standard"),
        ({"augmentation": "light", "unfreeze": "none"}, "light"),
        ({"augmentation": "mine.yaml"}, "mine.yaml"),
    ],
)
def test_auto_is_mirror_where_frozen_layers_make_up_most_of_the_work(options: dict[str, Any], expected: str) -> None:
    assert chosen_augmentation({**DEFAULTS, **options}) == expected


def test_a_policy_that_cannot_be_read_is_an_error_as_ever() -> None:
    with pytest.raises(OptionError, match="blok5"):
        chosen_augmentation({**DEFAULTS, "unfreeze": "blok5"})


def test_margin_is_for_arcface_alone() -> None:
    assert chosen_margin(DEFAULTS) == 0
    assert chosen_margin({**DEFAULTS, "head": "arcface"}) == 0.3
    assert chosen_margin({**DEFAULTS, "head": "arcface", "margin": 0.5}) == 0.5
    with pytest.raises(OptionError, match=r"--margin 0\.5 is for --head arcface, not linear"):
        check_recipe({**DEFAULTS, "margin": 0.5})
    with pytest.raises(OptionError, match="leave out --mixup and --cutmix"):
        check_recipe({**DEFAULTS, "head": "arcface", "mixup": 0.2})
