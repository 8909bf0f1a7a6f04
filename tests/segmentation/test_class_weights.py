from __future__ import annotations

import torch

from vggtransfer.segmentation.class_weights import ClassFrequencies, median_frequency_weights


def test_median_frequency_by_hand() -> None:
    frequencies = ClassFrequencies(4)
    frequencies.add(torch.tensor([[0, 0, 0, 1], [255, 0, 0, 1]]))  # 5 and 2 of 7
    frequencies.add(torch.tensor([[0, 2], [2, 2]], dtype=torch.uint8))  # 1 and 3 of 4
    assert frequencies.pixels.tolist() == [6, 2, 3, 0]
    assert frequencies.pixels_beside.tolist() == [11, 7, 4, 0]
    median = 6 / 11  # of 6/11, 2/7 and 3/4
    expected = torch.tensor([1, median * 7 / 2, median * 4 / 3, 1])
    torch.testing.assert_close(median_frequency_weights(frequencies), expected)


def test_without_masks_all_weigh_alike() -> None:
    assert median_frequency_weights(ClassFrequencies(2)).tolist() == [1, 1]
