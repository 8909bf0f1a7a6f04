"""What a metric's values depend on besides the pictures: to be kept with every number."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Stamp:
    """Two values can be compared if their stamps are equal.

    Attributes:
        metric: Name of the metric.
        version: Of its definition.
        net: Architecture of the trunk.
        weights: Where the trunk's weights came from.
        weights_digest: SHA-256 of the trunk's weights and normalisation.
        heads: Where the learned weights came from; `"none"` for uniform ones.
        heads_digest: SHA-256 of these; empty for uniform ones.
        input_range: What pictures are expected in.
        resize: What is done to their size before comparing.
    """

    metric: str
    version: str
    net: str
    weights: str
    weights_digest: str
    heads: str
    heads_digest: str
    input_range: str = "[0, 1]"
    resize: str = "none"

    def as_dict(self) -> dict[str, str]:
        """The fields, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        heads = f", heads {self.heads} ({self.heads_digest[:12]})" if self.heads_digest else ", no heads"
        return f"{self.metric} {self.version} on {self.net} {self.weights} ({self.weights_digest[:12]}){heads}"
