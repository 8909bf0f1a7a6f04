from __future__ import annotations

from dataclasses import replace

import pytest

from vggtransfer.features.extraction_plan import ExtractionPlan, differences

PLAN = ExtractionPlan(
    architecture="vgg16",
    origin="somewhere",
    digest="0123456789abcdef" * 4,
    shapes={"pool5": (512,), "relu4_3": (512,)},
    pool="gap",
    image_size=224,
    crop_fraction=0.875,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    precision="fp32",
    store="fp32",
    file_format="safetensors",
    pictures=1000,
    list_digest="fedcba9876543210" * 4,
)


@pytest.mark.parametrize(
    ("pictures", "per_part", "parts"),
    [(1, 64, 1), (64, 64, 1), (65, 64, 2), (10_000, 128, 79), (1_000_000, 512, 1954)],
)
def test_parts_cover_all_pictures_once(pictures: int, per_part: int, parts: int) -> None:
    plan = replace(PLAN, pictures=pictures)
    assert (plan.pictures_per_part, plan.parts) == (per_part, parts)
    assert [index for number in range(parts) for index in plan.part_range(number)] == list(range(pictures))


@pytest.mark.parametrize(("store", "per_part"), [("fp32", 5), ("fp16", 10)])
def test_a_part_of_whole_maps_is_bounded_in_bytes(store: str, per_part: int) -> None:
    plan = replace(PLAN, shapes={"relu1_2": (64, 224, 224)}, store=store)
    assert plan.pictures_per_part == per_part
    assert replace(plan, shapes={"relu1_2": (64, 4096, 4096)}).pictures_per_part == 1


def test_where_weights_came_from_makes_no_difference_but_what_they_are_does() -> None:
    there = PLAN.description()
    assert differences(there, replace(PLAN, origin="elsewhere").description()) == ""
    assert replace(PLAN, origin="elsewhere").fingerprint == PLAN.fingerprint
    other = replace(PLAN, digest="f" * 64, pool="max")
    assert other.fingerprint != PLAN.fingerprint
    assert differences(there, other.description()) == (
        "encoder vgg16 0123456789abcdef there, vgg16 ffffffffffffffff now; pool gap there, max now"
    )


def test_the_order_of_layers_makes_no_difference_to_json_but_to_the_files() -> None:
    other = replace(PLAN, shapes={"relu4_3": (512,), "pool5": (512,)})
    assert "layers pool5,relu4_3 there, relu4_3,pool5 now" in differences(PLAN.description(), other.description())
