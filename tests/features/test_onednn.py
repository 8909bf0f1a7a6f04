from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vggtransfer.features import onednn

OPERATORS = ("_convolution_pointwise", "_linear_pointwise", "_reorder_convolution_weight")
KINDS = [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)]


@pytest.fixture(autouse=True)
def _nothing_refused_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "_refused", set())


def results(kind: torch.dtype) -> list[tuple[Callable[[], Tensor], Tensor]]:
    """Each operation, and what it is to give."""
    draw = torch.Generator().manual_seed(0)
    x, y, bias = (torch.randn(*size, generator=draw).to(kind) for size in ((6, 8), (5, 8), (6,)))
    maps, filters = (torch.randn(*size, generator=draw).to(kind) for size in ((2, 8, 7, 6), (6, 8, 3, 3)))
    maps = maps.contiguous(memory_format=torch.channels_last)
    convolution = onednn.PackedConvolution(filters, bias, padding=(2, 2), dilation=(2, 2), relu=True)
    grouped = onednn.PackedConvolution(filters[:, :4], bias, padding=(1, 1), groups=2, relu=False)
    double = [tensor.double() for tensor in (x, y, bias, maps, filters)]
    convolved, smaller = (
        F.conv2d(each, double[4], double[2], padding=2, dilation=2).relu() for each in (double[3], double[3][:1, :, :5])
    )
    return [
        (lambda: onednn.product(x, y), double[0] @ double[1].T),
        (lambda: convolution(maps), convolved),
        (lambda: convolution(maps[:1, :, :5]), smaller),
        (lambda: grouped(maps), F.conv2d(double[3], double[4][:, :4], double[2], padding=1, groups=2)),
    ]


def check(found: Tensor, expected: Tensor, error: float) -> None:
    assert (found.double() - expected).norm() <= error * expected.norm()


@pytest.mark.parametrize(("kind", "error"), KINDS)
def test_results_are_those_of_double_precision(kind: torch.dtype, error: float) -> None:
    for run, expected in results(kind):
        check(run(), expected, error)
    assert not onednn._refused


@pytest.mark.parametrize(("kind", "error"), KINDS)
def test_weights_serve_one_size_of_maps_after_the_other(kind: torch.dtype, error: float) -> None:
    draw = torch.Generator().manual_seed(0)
    filters, maps = (torch.randn(*size, generator=draw).to(kind) for size in ((512, 16, 1, 1), (1, 64, 70, 1)))
    convolution = onednn.PackedConvolution(filters, None, padding=(0, 0), groups=4, relu=False)
    for rows in (70, 3, 64, 3, 70):  # oneDNN has another layout for 512 filters from 64 rows on
        expected = F.conv2d(maps[:, :, :rows].double(), filters.double(), groups=4)
        check(convolution(maps[:, :, :rows].contiguous(memory_format=torch.channels_last)), expected, error)
    assert list(convolution._packed) == ([(64, 1), (70, 1)] if onednn.takes(maps) else [])


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize(("kind", "error"), KINDS)
def test_an_operator_that_refuses_is_not_asked_again(
    operator: str, kind: torch.dtype, error: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(*_arguments: object) -> Tensor:
        asked.append(operator)
        raise RuntimeError("takes 9 arguments")

    monkeypatch.setattr(torch.ops.mkldnn, operator, refuse)
    for run, expected in [*results(kind), *results(kind)]:
        check(run(), expected, error)
        check(run(), expected, error)
    assert len(asked) == int(onednn.takes(torch.zeros(1, dtype=kind)))


def test_tensors_that_nobody_can_multiply_are_no_refusal() -> None:
    x = torch.zeros(1, 8, 1, 1)
    convolution = onednn.PackedConvolution(torch.zeros(5, 8, 3, 3), None, padding=(0, 0), relu=True)
    for run in (lambda: convolution(x), lambda: onednn.product(x[0, :3, 0], x[0, :, 0].T)):
        with pytest.raises(RuntimeError):
            run()
    assert not onednn._refused


def test_what_was_packed_serves_after_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = results(torch.float32)
    for run, _ in runs:
        run()
    for operator in OPERATORS:
        monkeypatch.setattr(torch.ops.mkldnn, operator, None)  # as good as absent
    for run, expected in runs:
        check(run(), expected, 1e-5)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_it_is_not_asked_where_it_is_switched_off_or_cannot(kind: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(1, dtype=kind)
    with torch.backends.mkldnn.flags(enabled=False, allow_tf32=None):
        assert not onednn.takes(x)
    assert not onednn.takes(x.double())
    assert not onednn.takes(x.to("meta"))
    onednn._computes.cache_clear()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    try:
        assert not onednn.takes(x)
    finally:
        onednn._computes.cache_clear()
