"""The grid operations as Triton kernels, for float32 and half types on CUDA; `sgloc.ops.triton_launch` launches them.

A program makes one tile of the result, `block_nodes` nodes by nodes or columns, and does next to nothing where its
sketch has no nodes for the tile. Pointers are to contiguous tensors of the shapes that `sgloc.ops.grid` states; places
in them are int64. `most` is M, `num_tiles` the tiles that M nodes take, `num_rows` S and `width` D.
"""

# A kernel's parameters have the types that Triton compiles it for.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl


@triton.jit
def _find_boxes(points, node_offsets, node, is_node, block_points: tl.constexpr):
    """x0, x1, y0, y1 of nodes [n], from their points."""
    begin = tl.load(node_offsets + node, mask=is_node, other=0)
    length = tl.load(node_offsets + node + 1, mask=is_node, other=0) - begin
    x0 = tl.full(node.shape, float("inf"), tl.float32)
    y0 = tl.full(node.shape, float("inf"), tl.float32)
    x1 = tl.full(node.shape, float("-inf"), tl.float32)
    y1 = tl.full(node.shape, float("-inf"), tl.float32)
    for start in range(0, tl.max(length, 0), block_points):
        place = start + tl.arange(0, block_points)
        inside = place[None, :] < length[:, None]
        point = points + 2 * (begin[:, None] + place[None, :])
        x = tl.load(point, mask=inside, other=0).to(tl.float32)
        y = tl.load(point + 1, mask=inside, other=0).to(tl.float32)
        x0 = tl.minimum(x0, tl.min(tl.where(inside, x, float("inf")), 1))
        y0 = tl.minimum(y0, tl.min(tl.where(inside, y, float("inf")), 1))
        x1 = tl.maximum(x1, tl.max(tl.where(inside, x, float("-inf")), 1))
        y1 = tl.maximum(y1, tl.max(tl.where(inside, y, float("-inf")), 1))
    return x0, x1, y0, y1


@triton.jit
def node_boxes_kernel(points, node_offsets, boxes, num_nodes, block_nodes: tl.constexpr, block_points: tl.constexpr):
    """boxes [S, 4] of points [P, 2]; one program for each tile of nodes."""
    node = tl.program_id(0).to(tl.int64) * block_nodes + tl.arange(0, block_nodes)
    is_node = node < num_nodes
    x0, x1, y0, y1 = _find_boxes(points, node_offsets, node, is_node, block_points)
    tl.store(boxes + 4 * node, x0, mask=is_node)
    tl.store(boxes + 4 * node + 1, x1, mask=is_node)
    tl.store(boxes + 4 * node + 2, y0, mask=is_node)
    tl.store(boxes + 4 * node + 3, y1, mask=is_node)


@triton.jit
def _read_boxes(boxes, node, is_node):
    """x0, x1, y0, y1 of nodes [n], from boxes [S, 4]."""
    x0 = tl.load(boxes + 4 * node, mask=is_node, other=0).to(tl.float32)
    x1 = tl.load(boxes + 4 * node + 1, mask=is_node, other=0).to(tl.float32)
    y0 = tl.load(boxes + 4 * node + 2, mask=is_node, other=0).to(tl.float32)
    y1 = tl.load(boxes + 4 * node + 3, mask=is_node, other=0).to(tl.float32)
    return x0, x1, y0, y1


@triton.jit
def _third(low, high, value):
    """0 where value < low, 2 where value > high, else 1: the column or row of METHOD 4; [I] and [J] to [I, J]."""
    return (value[None, :] >= low[:, None]).to(tl.int32) + (value[None, :] > high[:, None]).to(tl.int32)


@triton.jit
def _relation(x0, x1, y0, y1, other_x0, other_x1, other_y0, other_y1):
    """The nine bits of the boxes [J] in the grids of the boxes [I]: [I, J]."""
    a = _third(x0, x1, other_x0)
    b = _third(x0, x1, other_x1)
    c = _third(y0, y1, other_y0)
    d = _third(y0, y1, other_y1)
    rows = (2 << d) - (1 << c)
    ends = (1 << c) | (1 << d)
    # Columns a and b are on the perimeter from end to end, a column between them only at its ends.
    return (rows << 3 * a) | (rows << 3 * b) | tl.where(b - a == 2, ends << 3, 0)


@triton.jit
def _adjacency_tile(sketch_offsets, num_tiles, block_nodes: tl.constexpr):
    """Which tile of which sketch this program makes: the sketch, its first node and number of nodes, and the tile's
    first row and column."""
    program = tl.program_id(0)
    sketch = (program // (num_tiles * num_tiles)).to(tl.int64)
    begin = tl.load(sketch_offsets + sketch)
    num_nodes = tl.load(sketch_offsets + sketch + 1) - begin
    row = program // num_tiles % num_tiles * block_nodes
    return sketch, begin, num_nodes, row, program % num_tiles * block_nodes


@triton.jit
def _store_adjacency(adjacency, bits, sketch, most, i, j, num_nodes):
    """Write a tile [I, J], 0 in padding."""
    real = (i < num_nodes)[:, None] & (j < num_nodes)[None, :]
    place = (sketch * most + i[:, None]) * most + j[None, :]
    tl.store(adjacency + place, tl.where(real, bits, 0).to(tl.int16), mask=(i < most)[:, None] & (j < most)[None, :])


@triton.jit
def grid_adjacency_kernel(boxes, sketch_offsets, adjacency, most, num_tiles, block_nodes: tl.constexpr):
    """adjacency [B, M, M] of boxes [S, 4]; one program for each sketch, tile of rows and tile of columns."""
    sketch, begin, num_nodes, row, column = _adjacency_tile(sketch_offsets, num_tiles, block_nodes)
    i = row + tl.arange(0, block_nodes)
    j = column + tl.arange(0, block_nodes)
    bits = tl.zeros([block_nodes, block_nodes], tl.int32)
    if max(row, column) < num_nodes:
        x0, x1, y0, y1 = _read_boxes(boxes, begin + i, i < num_nodes)
        other_x0, other_x1, other_y0, other_y1 = _read_boxes(boxes, begin + j, j < num_nodes)
        bits = _relation(x0, x1, y0, y1, other_x0, other_x1, other_y0, other_y1)
    _store_adjacency(adjacency, bits, sketch, most, i, j, num_nodes)


@triton.jit
def node_adjacency_kernel(
    points,
    node_offsets,
    sketch_offsets,
    adjacency,
    most,
    num_tiles,
    block_nodes: tl.constexpr,
    block_points: tl.constexpr,
):
    """adjacency [B, M, M] of points [P, 2]; programs as in `grid_adjacency_kernel`."""
    sketch, begin, num_nodes, row, column = _adjacency_tile(sketch_offsets, num_tiles, block_nodes)
    i = row + tl.arange(0, block_nodes)
    j = column + tl.arange(0, block_nodes)
    bits = tl.zeros([block_nodes, block_nodes], tl.int32)
    if max(row, column) < num_nodes:
        x0, x1, y0, y1 = _find_boxes(points, node_offsets, begin + i, i < num_nodes, block_points)
        other_x0, other_x1, other_y0, other_y1 = _find_boxes(
            points, node_offsets, begin + j, j < num_nodes, block_points
        )
        bits = _relation(x0, x1, y0, y1, other_x0, other_x1, other_y0, other_y1)
    _store_adjacency(adjacency, bits, sketch, most, i, j, num_nodes)


@triton.jit
def grid_aggregate_kernel(
    adjacency,
    embeddings,
    sketch_offsets,
    sums,
    most,
    num_tiles,
    num_rows,
    width,
    block_nodes: tl.constexpr,
    block_columns: tl.constexpr,
):
    """sums [9, S, D] of embeddings [S, D]; one program for each sketch and tile of nodes, cell, and tile of columns."""
    sketch = (tl.program_id(0) // num_tiles).to(tl.int64)
    begin = tl.load(sketch_offsets + sketch)
    num_nodes = tl.load(sketch_offsets + sketch + 1) - begin
    row = tl.program_id(0) % num_tiles * block_nodes
    if row >= num_nodes:
        return
    cell = tl.program_id(1)
    i = row + tl.arange(0, block_nodes)
    column = tl.program_id(2) * block_columns + tl.arange(0, block_columns)
    total = tl.zeros([block_nodes, block_columns], tl.float32)
    for start in range(0, num_nodes, block_nodes):
        j = start + tl.arange(0, block_nodes)
        place = (sketch * most + i[:, None]) * most + j[None, :]
        bits = tl.load(adjacency + place, mask=(i < num_nodes)[:, None] & (j < num_nodes)[None, :], other=0)
        relation = ((bits >> cell) & 1).to(embeddings.dtype.element_ty)
        rows = tl.load(
            embeddings + (begin + j)[:, None] * width + column[None, :],
            mask=(j < num_nodes)[:, None] & (column < width)[None, :],
            other=0,
        )
        total = tl.dot(relation, rows, total, input_precision="ieee")
    node = cell.to(tl.int64) * num_rows + begin + i
    tl.store(
        sums + node[:, None] * width + column[None, :],
        total.to(sums.dtype.element_ty),
        mask=(i < num_nodes)[:, None] & (column < width)[None, :],
    )


@triton.jit
def grid_aggregate_transposed_kernel(
    adjacency,
    sums,
    sketch_offsets,
    result,
    most,
    num_tiles,
    num_rows,
    width,
    num_cells: tl.constexpr,
    block_nodes: tl.constexpr,
    block_columns: tl.constexpr,
):
    """result [S, D] of sums [9, S, D]; one program for each sketch and tile of nodes, and tile of columns."""
    sketch = (tl.program_id(0) // num_tiles).to(tl.int64)
    begin = tl.load(sketch_offsets + sketch)
    num_nodes = tl.load(sketch_offsets + sketch + 1) - begin
    tile = tl.program_id(0) % num_tiles * block_nodes
    if tile >= num_nodes:
        return
    j = tile + tl.arange(0, block_nodes)
    column = tl.program_id(1) * block_columns + tl.arange(0, block_columns)
    total = tl.zeros([block_nodes, block_columns], tl.float32)
    for start in range(0, num_nodes, block_nodes):
        i = start + tl.arange(0, block_nodes)
        place = (sketch * most + i[None, :]) * most + j[:, None]
        bits = tl.load(adjacency + place, mask=(j < num_nodes)[:, None] & (i < num_nodes)[None, :], other=0)
        node = begin + i
        for cell in range(num_cells):
            rows = tl.load(
                sums + node[:, None] * width + column[None, :],
                mask=(i < num_nodes)[:, None] & (column < width)[None, :],
                other=0,
            )
            relation = ((bits >> cell) & 1).to(sums.dtype.element_ty)
            total = tl.dot(relation, rows, total, input_precision="ieee")
            node += num_rows
    tl.store(
        result + (begin + j)[:, None] * width + column[None, :],
        total.to(result.dtype.element_ty),
        mask=(j < num_nodes)[:, None] & (column < width)[None, :],
    )
