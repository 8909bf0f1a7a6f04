"""The options of `finetune` about the maps of frozen layers, as `PrefixCache` wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vggtransfer.classification.fit_options import why_not_cached
from vggtransfer.classification.pictures import LabelledPictures
from vggtransfer.data.fixed_views import FixedViews, Plain
from vggtransfer.data.transforms import Transform
from vggtransfer.features.prefix_cache import CacheOptions, PrefixCache
from vggtransfer.training.contract import FitOptions
from vggtransfer.training.session import Session


def prefix_cache(
    recipe: Mapping[str, Any],
    pictures: LabelledPictures,
    *,
    transforms: Sequence[tuple[int, Transform | FixedViews]],
    plain: Transform,
    options: FitOptions,
    session: Session,
) -> PrefixCache | None:
    """Makes the cache of a run; None for a run without, of which it says why unless that was asked for."""
    if recipe["cache"] == "off":
        return None
    if reason := why_not_cached(recipe):
        if session.is_main:
            print(f"cache: off; {reason}")
        return None
    return PrefixCache(
        train=pictures.train,
        validation=pictures.val,
        hashes=pictures.hashes,
        views=[(start, views) for start, views in transforms if isinstance(views, FixedViews)],
        plain=Plain(plain),
        policies=[stage.start for stage in options.stages],
        options=CacheOptions(
            mode=recipe["cache"],
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
