"""The optimizers that can be asked for; apart from the others because it needs no torch."""

from typing import Literal

OptimizerName = Literal["adamw", "sgd", "muon"]
