"""What stands above and below the table of a comparison, and in its picture."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from vggtransfer.comparison.figure import draw_comparison
from vggtransfer.comparison.markdown import comparison_markdown
from vggtransfer.comparison.networks import parameters_with_auxiliary_heads
from vggtransfer.comparison.notes import comparison_notes
from vggtransfer.comparison.results import NetworkResult
from vggtransfer.comparison.setting import Setting

SETTING = Setting("title", classes=10, image_size=32, train_sizes=None, head="linear", notes=())


def trained(arch: str, **changes) -> NetworkResult:
    row = {"train_loss": 1.0, "train_accuracy": 0.6, "val_loss": 1.1, "val_accuracy": 0.5}
    result = NetworkResult(
        arch=arch,
        diverged="",
        origin="random (he)",
        image_size=32,
        train_sizes=((0, 32),),
        parameters=1_000_000,
        macs=2_000_000,
        batch_norm=True,
        learning_rate=0.1,
        warmup_epochs=2.0,
        gradient_clip=None,
        resumed=False,
        memory_mib=None,
        memory_heading="GPU memory, peak (MiB)",
        history=({"epoch": 1, "seconds": 1.0, "images_per_second": 9.0, **row},),
        identity={},
    )
    return replace(result, **changes)


def markdown(*archs: str, title: str = "title", run: str = "run") -> str:
    return comparison_markdown([trained(arch) for arch in archs], [], title=title, notes=[], run=Path(run))


def test_a_vgg_with_another_head_has_not_the_published_parameters():
    results = [trained(arch) for arch in ("vgg16", "vgg16_bn_x0_25", "alexnet", "vgg19_bn")]
    words = "vgg16, vgg19_bn: head linear in the place of fc6 to fc8"
    assert [note for note in comparison_notes(results, SETTING) if note.startswith(words)]
    for setting, networks in ((replace(SETTING, head="vgg"), results), (SETTING, results[1:3])):
        assert not [note for note in comparison_notes(networks, setting) if "fc6" in note]


@pytest.mark.parametrize(
    ("asked", "own", "told"),
    [
        (
            ((0, 32), (2, 48)),
            ((0, 63), (2, 63)),
            "not 32 48@2 where a network does not take all of these sides: alexnet 63.",
        ),
        (((0, 32), (2, 96)), ((0, 63), (2, 96)), "alexnet 63 96@2."),
        (((0, 64), (2, 96)), ((0, 64), (2, 96)), None),
        (None, ((0, 64),), None),
    ],
)
def test_other_train_sizes_than_asked_for_are_told(asked, own, told):
    network = trained("alexnet", image_size=64, train_sizes=own)
    notes = comparison_notes([network], replace(SETTING, image_size=64, train_sizes=asked))
    found = [note for note in notes if note.startswith("Training pictures")]
    assert len(found) == (told is not None)
    assert told is None or found[0].endswith(told)


def test_published_table_says_what_it_counts():
    text = markdown("lenet5", "vgg16", "vgg11_lrn", "vgg16_bn_x0_25", "googlenet")
    head = next(line for line in text.splitlines() if line.startswith("The networks as torchvision builds them"))
    assert "for 224x224 and 1000 classes; lenet5: ours, for grey pictures of 10 classes; vgg11_lrn: ours, after" in head
    assert "vgg16_bn_x0_25: ours, without a classifier" in head
    assert "googlenet without its auxiliary heads, 13,004,888 parameters with them" in head
    assert "vgg16:" not in head
    assert "| network | pixels | parameters | MACs | receptive field of the last map |" in text
    assert "| vgg16 | 224 | 138,357,544 | 15,470,264,320 | 212 |" in text
    assert "| lenet5 | 32 | 61,706 | 416,520 | 32 |" in text
    assert parameters_with_auxiliary_heads() == 13_004_888


def test_markdown_means_nothing_in_names_and_a_shell_gets_one_path():
    text = markdown("lenet5", title="a*b* $c$ <i> [d]", run="my runs/1")
    assert text.startswith("a\\*b\\* \\$c\\$ \\<i> \\[d\\]\n")
    assert "--config 'my runs/1/recipe.yaml'` trains the same again" in text


def test_picture_takes_any_title(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_comparison([trained("lenet5")], tmp_path / "one.png", title="$x_$ and \\frac \u65e5\u672c")
    with Image.open(tmp_path / "one.png") as picture:
        assert picture.size[0] > 1000
