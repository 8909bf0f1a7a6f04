"""The options of `finetune` about the maps of frozen layers, as `PrefixCache` wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vggtransfer.classification.pictures import LabelledPictures
from vggtransfer.data.dataset import PictureTransform
from vggtransfer.data.fixed_views import Plain
from vggtransfer.data.transforms import Transform
from vggtransfer.errors import OptionError
from vggtransfer.features.prefix_cache import CacheOptions, PrefixCache
from vggtransfer.training.contract import FitOptions
from vggtransfer.training.session import Session


def prefix_cache(
    recipe: Mapping[str, Any],
    pictures: LabelledPictures,
    *,
    transforms: Sequence[tuple[int, PictureTransform]],
    plain: Transform,
    options: FitOptions,
    session: Session,
) -> PrefixCache | None:
    """Makes the cache of a run; None where pictures are mixed before the network sees them.

    Raises:
        OptionError: Maps are to be kept, but cannot be.
    """
    mode = recipe["cache"]
    if recipe["mixup"] or recipe["cutmix"]:
        if mode in ("memory", "disk"):
            raise OptionError(f"--cache {mode} is not possible: mixup and cutmix make new pictures in every step")
        return None
    return PrefixCache(
        train=pictures.train,
        validation=pictures.val,
        hashes=pictures.hashes,
        transforms=transforms,
        plain=Plain(plain),
        policies=[stage.start for stage in options.stages],
        options=CacheOptions(
            mode=mode,
            storage=recipe["cache_precision"],
            bytes=round(recipe["cache_size"] * 1e9),
            epochs=options.epochs,
            batch_size=options.batch_size,
            workers=options.workers,
            compute_type=options.precision,
            seed=options.seed,
        ),
        session=session,
    )
