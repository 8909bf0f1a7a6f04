import pytest

from vggtransfer.errors import OptionError
from vggtransfer.training.schedule import Stage, learning_rate_factor, parse_unfreeze_schedule, stage_at


def test_single_policy_is_one_stage():
    assert parse_unfreeze_schedule("block4-block5") == (Stage(0, "block4-block5"),)


def test_stages_and_comma_lists_with_spaces():
    stages = parse_unfreeze_schedule("none  block5, conv1_1@2 all@6")
    assert stages == (Stage(0, "none"), Stage(2, "block5,conv1_1"), Stage(6, "all"))
    assert [stage_at(stages, epoch).value for epoch in (0, 1, 2, 5, 6, 99)] == [
        "none",
        "none",
        "block5,conv1_1",
        "block5,conv1_1",
        "all",
        "all",
    ]


@pytest.mark.parametrize("text", ["", "block5@2", "none block5@0", "none block5", "none block5@x", "@2", "none @2"])
def test_schedules_that_cannot_be_read(text):
    with pytest.raises(OptionError, match="unfreeze='"):
        parse_unfreeze_schedule(text)


def test_warm_up_then_half_a_cosine():
    factors = [learning_rate_factor(step, total=110, warmup=10) for step in range(110)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1.0
    assert factors[60] == pytest.approx(0.5)
    assert 0 < factors[-1] < 1e-3
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_without_warm_up_the_first_step_has_the_full_rate():
    assert learning_rate_factor(0, total=10, warmup=0) == 1.0
