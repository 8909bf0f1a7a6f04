"""Errors a user can cause and mend. The command line prints them in one line and exits with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VGGTransferError(Exception):
    """Base of all errors that are answered by changing an argument, a file or the machine, not the code."""


class OptionError(VGGTransferError, ValueError):
    """An argument, option or recipe key has a value that cannot be used."""


class InputError(VGGTransferError, ValueError):
    """A batch of pictures has the wrong range, shape or size for the network."""


class WeightsError(VGGTransferError):
    """Weights cannot be found, verified, read or matched to the architecture."""


class DataError(VGGTransferError):
    """A folder of pictures is missing, empty or contradicts itself."""


class BadImageError(DataError):
    """One picture cannot be decoded; the message starts with its path."""


class TrainingError(VGGTransferError):
    """Training cannot go on, for example because the loss is no longer finite."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Returns `" (did you mean 'x'?)"` for the choice nearest to `name`, or an empty string when none is near."""
    near = difflib.get_close_matches(name, list(choices), n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""
