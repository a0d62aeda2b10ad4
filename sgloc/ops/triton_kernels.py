"""Triton kernels of the grid operations on CUDA, for float32 and half precision; launched by `sgloc.ops.triton_launch`.

A program computes one tile of the result, `block_nodes` nodes by as many nodes or by columns, and does almost nothing
if its sketch has no nodes in the tile. Pointers refer to contiguous tensors with the shapes given in `sgloc.ops.grid`;
indices into them are int64. `most` is M, `num_tiles` the number of tiles that cover M nodes, `num_rows` S, `width` D.
"""

# Kernel parameters have no annotations: Triton determines their types at launch.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl


@triton.jit
def _side(boxes, node, is_node):
    """Load one side of the boxes of nodes [n]; `boxes` points to that side of boxes [S, 4]."""
    return tl.load(boxes + 4 * node, mask=is_node, other=0).to(tl.float32)


@triton.jit
def _third(low, high, value):
    """Return 0 where value < low, 2 where value > high, else 1: the column or row of METHOD 4; [I], [J] to [I, J]."""
    return (value[None, :] >= low[:, None]).to(tl.int32) + (value[None, :] > high[:, None]).to(tl.int32)


@triton.jit
def _thirds(boxes, axis, begin, i, j, num_nodes):
    """Return the first and last column (axis 0) or row (axis 1) that boxes [J] of a sketch cover in the grids of its
    boxes [I], as [I, J] each."""
    low = boxes + 2 * axis
    own_low = _side(low, begin + i, i < num_nodes)
    own_high = _side(low + 1, begin + i, i < num_nodes)
    first = _third(own_low, own_high, _side(low, begin + j, j < num_nodes))
    last = _third(own_low, own_high, _side(low + 1, begin + j, j < num_nodes))
    return first, last


@triton.jit
def grid_adjacency_kernel(adjacency, boxes, sketch_offsets, most, block_nodes: tl.constexpr):
    """Compute adjacency [B, M, M] from boxes [S, 4]; one program per sketch, tile of rows and tile of columns."""
    sketch = tl.program_id(0).to(tl.int64)
    begin = tl.load(sketch_offsets + sketch)
    num_nodes = tl.load(sketch_offsets + sketch + 1) - begin
    row = tl.program_id(1) * block_nodes
    column = tl.program_id(2) * block_nodes
    i = row + tl.arange(0, block_nodes)
    j = column + tl.arange(0, block_nodes)
    bits = tl.zeros([block_nodes, block_nodes], tl.int32)
    if max(row, column) < num_nodes:
        a, b = _thirds(boxes, 0, begin, i, j, num_nodes)
        c, d = _thirds(boxes, 1, begin, i, j, num_nodes)
        rows = (2 << d) - (1 << c)
        ends = (1 << c) | (1 << d)
        # The perimeter includes columns a and b entirely, and a column between them only at its ends.
        bits = (rows << 3 * a) | (rows << 3 * b) | tl.where(b - a == 2, ends << 3, 0)
    place = (sketch * most + i[:, None]) * most + j[None, :]
    is_pair = (i < num_nodes)[:, None] & (j < num_nodes)[None, :]
    inside = (i < most)[:, None] & (j < most)[None, :]
    tl.store(adjacency + place, tl.where(is_pair, bits, 0).to(tl.int16), mask=inside)


@triton.jit
def grid_aggregate_kernel(
    sums,
    rows,
    adjacency,
    sketch_offsets,
    most,
    num_tiles,
    num_rows,
    width,
    num_cells: tl.constexpr,
    transposed: tl.constexpr,
    block_nodes: tl.constexpr,
    block_columns: tl.constexpr,
):
    """Compute sums [9, S, D] from rows [S, D]; transposed, sums [S, D] from rows [9, S, D].

    `num_cells` is the number of cells in `rows`. One program per sketch and tile of nodes, cell of the sums, and tile
    of columns.
    """
    sketch = (tl.program_id(0) // num_tiles).to(tl.int64)
    begin = tl.load(sketch_offsets + sketch)
    num_nodes = tl.load(sketch_offsets + sketch + 1) - begin
    tile = tl.program_id(0) % num_tiles * block_nodes
    if tile >= num_nodes:
        return
    first_cell = tl.program_id(1)
    own = tile + tl.arange(0, block_nodes)
    column = tl.program_id(2) * block_columns + tl.arange(0, block_columns)
    total = tl.zeros([block_nodes, block_columns], tl.float32)
    for start in range(0, num_nodes, block_nodes):
        other = start + tl.arange(0, block_nodes)
        if transposed:
            place = (sketch * most + other[None, :]) * most + own[:, None]
        else:
            place = (sketch * most + own[:, None]) * most + other[None, :]
        bits = tl.load(adjacency + place, mask=(own < num_nodes)[:, None] & (other < num_nodes)[None, :], other=0)
        node = begin + other
        for cell in range(num_cells):
            values = tl.load(
                rows + node[:, None] * width + column[None, :],
                mask=(other < num_nodes)[:, None] & (column < width)[None, :],
                other=0,
            )
            relation = ((bits >> (first_cell + cell)) & 1).to(rows.dtype.element_ty)
            total = tl.dot(relation, values, total, input_precision="ieee")
            node += num_rows
    node = first_cell.to(tl.int64) * num_rows + begin + own
    tl.store(
        sums + node[:, None] * width + column[None, :],
        total.to(sums.dtype.element_ty),
        mask=(own < num_nodes)[:, None] & (column < width)[None, :],
    )
