"""The network of an index, made again from what `index.yaml` says of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggtransfer.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vggtransfer.retrieval.embedder import Embedder
    from vggtransfer.retrieval.index_embedding import PictureEmbedder


def encoder_of(made: Mapping[str, Any], index: Path, *, device: str, weights: str | None) -> Embedder:
    """Loads the network that made the vectors of an index, without the whitening.

    Args:
        made: What `index.yaml` says of the embedding.
        index: The directory, for messages.
        device: Where to compute.
        weights: Name or path of the weights, or of the model, if they are not where they were.

    Raises:
        OptionError: The weights there are now are others.
        WeightsError: There are none.
    """
    from vggtransfer.retrieval.embedder import Embedder

    source = made["source"] if weights is None else weights
    of_model = made["of_model"]
    embedder = Embedder(
        None if of_model else made["architecture"],
        model=Path(source) if of_model else None,
        weights="default" if of_model else source,
        layer=made["layer"],
        pool=made["pool"],
        scales=made["scales"],
        image_size=made["image_size"],
        crop_fraction=made["crop_fraction"],
        # Other precisions are not to be had everywhere; vectors of two of them may be compared.
        precision="fp32" if made["precision"] == "fp32" else "auto",
        device=device,
    )
    check_encoder(embedder, made, index)
    return embedder


def check_encoder(embedder: PictureEmbedder, made: Mapping[str, Any], index: Path) -> None:
    """Refuses a network whose vectors cannot be compared with those of an index.

    Raises:
        OptionError: It is another one; says in what.
    """
    if embedder.digest == made["digest"]:
        return
    now = embedder.description
    different = "; ".join(
        f"{name} {made.get(name)} there, {now[name]} now" for name in now if made.get(name) != now[name]
    )
    raise OptionError(f"{index} was made with another encoder ({different}); use that one, or build a new index")
