"""`similarity evaluate` and `similarity distortions` on data whose answers are known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from PIL import Image

from vggtransfer.cli import main
from vggtransfer.data.synthetic import draw_flower
from vggtransfer.errors import DataError
from vggtransfer.perceptual import agreement
from vggtransfer.perceptual.distortion_ranking import rank_distortions
from vggtransfer.perceptual.distortions import MARGIN, STRENGTHS, cut, distorted, window
from vggtransfer.perceptual.judgements import find_judged_sets
from vggtransfer.perceptual.measure_evaluation import evaluate_measures


def write_judged(folder, rng):
    """Four 2AFC questions where four of five people find the noisier picture further off, and JND pairs."""
    for name in (
        "2afc/noise/ref",
        "2afc/noise/p0",
        "2afc/noise/p1",
        "2afc/noise/judge",
        "jnd/p0",
        "jnd/p1",
        "jnd/same",
    ):
        (folder / name).mkdir(parents=True)
    for number, (first, second) in enumerate([(2, 40), (40, 2), (5, 60), (60, 5)]):
        clean = draw_flower("daisy", size=32, seed=number)[0]
        noisy = [np.clip(clean + rng.normal(0, sd, clean.shape), 0, 255).astype(np.uint8) for sd in (first, second)]
        for place, picture in zip(("ref", "p0", "p1"), (clean, *noisy), strict=True):
            Image.fromarray(picture).save(folder / "2afc" / "noise" / place / f"{number}.png")
        np.save(folder / "2afc" / "noise" / "judge" / f"{number}.npy", np.float32([0.2 if first < second else 0.8]))
        Image.fromarray(clean).save(folder / "jnd" / "p0" / f"{number}.png")
        Image.fromarray(noisy[0]).save(folder / "jnd" / "p1" / f"{number}.png")
        np.save(folder / "jnd" / "same" / f"{number}.npy", np.float32([float(first < 10)]))


def test_measures_that_agree_with_people(tmp_path):
    write_judged(tmp_path, np.random.default_rng(0))
    result = evaluate_measures(tmp_path, metric="lpips,psnr", batch_size=3)
    assert [(score.name, score.kind, score.metric) for score in result.scores] == [
        ("2afc/noise", "2afc", "lpips-uncalibrated"),
        ("2afc/noise", "2afc", "psnr"),
        ("jnd", "jnd", "lpips-uncalibrated"),
        ("jnd", "jnd", "psnr"),
    ]
    for score in result.scores:
        if score.kind == "2afc":
            assert score.score == pytest.approx(0.8)
            assert score.people == pytest.approx(0.2**2 + 0.8**2)
            assert score.rank_correlation == pytest.approx(
                2 / math.sqrt(5), abs=1e-3
            )  # ranks 1 2 3 4 and 1.5 1.5 3.5 3.5
        else:
            assert score.score == pytest.approx(1.0)
            assert score.people is None


def test_judgements_that_cannot_be(tmp_path, capsys):
    with pytest.raises(DataError, match="no folder with ref, p0, p1 and judge"):
        find_judged_sets(tmp_path)
    write_judged(tmp_path, np.random.default_rng(0))
    np.save(tmp_path / "jnd" / "same" / "1.npy", np.float32([3]))
    with pytest.raises(DataError, match=r"expected one number from 0 to 1.*\[3.0\]"):
        find_judged_sets(tmp_path)
    (tmp_path / "2afc" / "noise" / "p1" / "2.png").unlink()
    assert main(["similarity", "evaluate", str(tmp_path)]) == 2
    assert "has no picture" in capsys.readouterr().err


def test_scores_by_hand():
    first, second, share = np.array([1.0, 3.0, 2.0]), np.array([2.0, 1.0, 2.0]), np.array([0.1, 0.7, 0.9])
    assert agreement.two_alternative_score(first, second, share) == pytest.approx((0.9 + 0.7 + 0.5) / 3)
    # By distance: same, different, same: precisions 1, 1/2, 2/3 at recalls 1/2, 1/2, 1.
    score = agreement.just_noticeable_score(np.array([0.3, 0.1, 0.2]), np.array([1.0, 1.0, 0.0]))
    assert score == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert agreement.ordered_share(np.array([[1.0, 2.0, 2.0], [3.0, 1.0, 4.0]])) == pytest.approx(4.5 / 6)
    assert agreement.rank_correlation(np.array([1.0, 2.0, math.inf]), np.array([3.0, 2.0, 1.0])) == pytest.approx(-1)
    assert agreement.rank_correlation(np.array([1.0, 1.0]), np.array([1.0, 2.0])) == 0


def test_average_precision_is_the_published_one():
    lpips = pytest.importorskip("lpips")
    rng = np.random.default_rng(0)
    distances, same = rng.random(50), rng.integers(0, 4, 50) / 3
    order = np.argsort(distances)
    hits, misses = np.cumsum(same[order]), np.cumsum(1 - same[order])
    expected = lpips.voc_ap(hits / same.sum(), hits / (hits + misses))
    assert agreement.just_noticeable_score(distances, same) == pytest.approx(expected, rel=1e-9)


def test_distortions_are_what_they_say():
    photograph = draw_flower("daisy", size=128, seed=3)[0]
    assert window(photograph, 97) is None
    place = window(photograph, 64)
    assert place == (32, 32)
    clean = cut(photograph, place, 64)

    def spoilt(kind, strength):
        return distorted(photograph, kind, strength, place=place, size=64, seed=1)

    assert np.array_equal(spoilt("shift", 8)[:, 8:], clean[:, :-8])
    assert np.array_equal(spoilt("shift", 8)[:, :8], photograph[32:96, 24:32])  # not an invented border
    assert (spoilt("noise", 16).astype(float) - clean)[np.abs(clean.astype(int) - 128) < 60].std() == pytest.approx(
        16, rel=0.1
    )
    luma = np.array([0.299, 0.587, 0.114])
    turned = spoilt("colour", 40)
    inside = ((turned > 0) & (turned < 255)).all(axis=2)  # not clipped
    assert np.abs(turned @ luma - clean @ luma)[inside].max() < 1
    assert np.abs(turned.astype(int) - clean).max() > 30
    for kind, strengths in STRENGTHS.items():
        errors = [np.square(spoilt(kind, strength).astype(float) - clean).mean() for strength in strengths]
        assert errors == sorted(errors), kind
        assert errors[0] > 0
    assert MARGIN % 16 == 0


def test_ranks_of_distortions(tmp_path, capsys):
    for number in range(3):
        Image.fromarray(draw_flower("daisy", size=96, seed=number)[0]).save(tmp_path / f"{number}.png")
    Image.new("RGB", (90, 90)).save(tmp_path / "small.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    result = rank_distortions(tmp_path, size=64, metric="lpips,psnr", format="json")
    assert (result.pictures, result.too_small, len(result.unreadable)) == (3, 1, 1)
    assert "broken.jpg" in result.unreadable[0]
    noise = next(score for score in result.scores if score.distortion == "noise" and score.metric == "psnr")
    assert noise.ordered == 1
    assert noise.medians == tuple(sorted(noise.medians, reverse=True))
    lpips = [score.ordered for score in result.scores if score.metric == "lpips-uncalibrated"]
    assert min(lpips) > 0.7
    assert json.loads(capsys.readouterr().out)["strengths"]["jpeg"] == [70, 50, 30, 15, 7]
    with pytest.raises(DataError, match="lower --size"):
        rank_distortions(tmp_path, size=128)
