"""The table of `vggtransfer inspect`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from vggtransfer.encoder.layer_costs import BYTES_PER_VALUE

if TYPE_CHECKING:
    from vggtransfer.encoder.inspection import Inspection

_MEBIBYTE = 2**20


def print_table(inspection: Inspection) -> None:
    """Prints one line per row, the totals and a summary to standard output."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_footer=True, padding=(0, 1, 0, 0), pad_edge=False)
    total = inspection.total
    table.add_column(inspection.level, "total", no_wrap=True)
    table.add_column("output", no_wrap=True, justify="right")
    table.add_column("stride", no_wrap=True, justify="right")
    table.add_column("receptive\nfield", no_wrap=True, justify="right")
    table.add_column("parameters", f"{total.parameters:,}", no_wrap=True, justify="right")
    table.add_column("MACs", f"{total.macs:,}", no_wrap=True, justify="right")
    table.add_column("activation\nbytes", f"{total.activation_bytes:,}", no_wrap=True, justify="right")
    table.add_column("status", total.status, no_wrap=True)
    for row in inspection.rows:
        table.add_row(
            row.name,
            " x ".join(map(str, row.shape)),
            "-" if row.stride is None else str(row.stride),
            f"{row.receptive_field:,}",
            f"{row.parameters:,}" if row.parameters else "-",
            f"{row.macs:,}" if row.macs else "-",
            f"{row.activation_bytes:,}",
            row.status,
        )

    console = Console(file=sys.stdout, highlight=False, markup=False)
    # Neither a pipe nor a narrow terminal may cut digits off.
    wide = console.options.update(max_width=1000)
    console.width = max(console.width, console.measure(table, options=wide).maximum)
    console.print(_title(inspection))
    console.print(table)
    for line in _summary(inspection):
        console.print(line, soft_wrap=True)


def _title(inspection: Inspection) -> str:
    size = inspection.image_size
    title = f"{inspection.arch}, pictures of {inspection.in_channels} x {size} x {size}"
    if inspection.output_stride not in (None, 32):
        title += f", output stride {inspection.output_stride}"
    return title


def _summary(inspection: Inspection) -> list[str]:
    total = inspection.total
    frozen = total.parameters - total.trainable_parameters
    lines = [
        f"Parameters   {total.parameters:,} ({total.parameters * BYTES_PER_VALUE / _MEBIBYTE:,.1f} MiB in fp32)",
        f"             {total.trainable_parameters:,} trainable, {frozen:,} frozen with unfreeze={inspection.unfreeze}",
        f"MACs         {_short(total.macs)} per picture (FLOPs: twice as many)",
        f"             {_short(total.conv_macs)} in convolutions, {_short(total.linear_macs)} in full connections",
        f"Activations  {total.activation_bytes / _MEBIBYTE:,.1f} MiB per picture in fp32, every layer's output kept",
    ]
    if any(row.receptive_field > inspection.image_size for row in inspection.rows):
        lines.append(f"Receptive fields above {inspection.image_size} reach past the picture: padding counts")
    lines.extend(inspection.notes)
    if inspection.stacked_kernels:
        lines.append("Stacked 3x3 convolutions from C to C channels against one larger kernel:")
    for stack in inspection.stacked_kernels:
        field, kernel = stack.receptive_field, stack.single_kernel_size
        lines.append(
            f"  {stack.convolutions} x 3x3 see {field}x{field} with {stack.weights} C^2 weights; "
            f"1 x {kernel}x{kernel} has {stack.single_weights} C^2"
        )
    return lines


def _short(count: int) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6)):
        if count >= size:
            return f"{count / size:,.3f} {unit}"
    return f"{count:,}"
