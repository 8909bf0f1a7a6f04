from pathlib import Path
from typing import Literal

import pytest

from vggtransfer.errors import OptionError
from vggtransfer.option_values import checked_values


def command(
    data: Path,
    *,
    name: str = "x",
    rate: float = 0.1,
    count: int | None = None,
    mode: Literal["on", "off"] = "on",
    flag: bool = False,
) -> int:
    return 0


def test_values_that_fit_pass_and_text_becomes_a_path():
    values = {"data": "folder", "name": "folder", "rate": 1, "count": None, "mode": "off", "flag": True}
    assert checked_values(command, values) == {**values, "data": Path("folder")}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"mode": "of"}, "mode='of' is not possible; accepted: 'on', 'off'"),
        ({"rate": "fast"}, "rate='fast'.*a number"),
        ({"rate": True}, "rate=True"),
        ({"count": 1.5}, "count=1.5.*a whole number, None"),
        ({"flag": 1}, "flag=1"),
        ({"data": None}, "data=None.*a path"),
        ({"nam": "x"}, "unknown option 'nam'.*did you mean 'name'"),
        ({"return": 0}, "unknown option 'return'"),
    ],
)
def test_values_that_do_not_fit_are_named(values, words):
    with pytest.raises(OptionError, match=f"^recipe.yaml: .*{words}"):
        checked_values(command, values, place="recipe.yaml: ")
