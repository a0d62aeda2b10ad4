"""METHOD 1 to 4 and the augmentation of METHOD 8, implemented slowly and literally.

The oracle shares no code with the library: it is the reference that the library's fast versions are tested against.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]


def normalise(stroke3: npt.NDArray[np.integer], scale: float) -> FloatArray:
    """METHOD 1: clip offsets to +-1000 and divide them by `scale`.

    Args:
        stroke3: integer [N, 3], rows (dx, dy, pen_lift), data set units.
        scale: scale of the data set, in data set units.

    Returns:
        float64 [N, 3], rows (dx, dy, pen_lift), normalised units.
    """
    rows = np.zeros((len(stroke3), 3))
    for index, (dx, dy, pen_lift) in enumerate(stroke3):
        rows[index, 0] = min(max(float(dx), -1000.0), 1000.0) / scale
        rows[index, 1] = min(max(float(dy), -1000.0), 1000.0) / scale
        rows[index, 2] = float(pen_lift)
    return rows


def from_first_point(rows: FloatArray) -> FloatArray:
    """METHOD 1: return a sketch's rows with the origin at its first point, in the shape of `rows`."""
    moved = np.array(rows)
    moved[0, 0], moved[0, 1] = 0.0, 0.0
    return moved


def absolute(rows: FloatArray) -> FloatArray:
    """METHOD 1: the cumulative sum of the offsets, starting at the origin.

    Args:
        rows: float64 [N, 3], rows (dx, dy, pen_lift).

    Returns:
        float64 [N, 2], rows (x, y), in the units of `rows`.
    """
    points = np.zeros((len(rows), 2))
    x, y = 0.0, 0.0
    for index, (dx, dy, _) in enumerate(rows):
        x, y = x + dx, y + dy
        points[index] = (x, y)
    return points


def stroke5(rows: FloatArray) -> FloatArray:
    """METHOD 1: the decoder's targets, including the end row (0, 0, 0, 0, 1).

    Args:
        rows: float64 [N, 3], rows (dx, dy, pen_lift), normalised units.

    Returns:
        float64 [N + 1, 5], rows (x, y, p1, p2, p3), x and y absolute and normalised.
    """
    targets = np.zeros((len(rows) + 1, 5))
    for index, (x, y) in enumerate(absolute(rows)):
        pen_lift = rows[index, 2]
        targets[index] = (x, y, 1.0 - pen_lift, pen_lift, 0.0)
    targets[len(rows)] = (0.0, 0.0, 0.0, 0.0, 1.0)
    return targets


def split_nodes(stroke_lengths: list[int], max_node_points: int | None) -> list[int]:
    """METHOD 2: a node is a whole stroke or a run of at most `max_node_points` consecutive points of one stroke.

    Args:
        stroke_lengths: number of points in each stroke.
        max_node_points: maximum number of points in a node; None for whole strokes.

    Returns:
        Number of points in each node, in drawing order.
    """
    node_lengths = []
    for length in stroke_lengths:
        remaining = length
        while max_node_points is not None and remaining > max_node_points:
            node_lengths.append(max_node_points)
            remaining -= max_node_points
        node_lengths.append(remaining)
    return node_lengths


def disturb(strokes: Sequence[FloatArray], noise: FloatArray, scale: float) -> list[FloatArray]:
    """METHOD 3: move every stroke except the first rigidly by e * b * r.

    Args:
        strokes: for each stroke, a float64 [n, 2] array of absolute normalised (x, y).
        noise: float64 [number of strokes, 2], e; the first row is not used.
        scale: r.

    Returns:
        The strokes of the disturbed sketch, with the shapes of `strokes`.
    """
    # The bounding box includes the origin.
    x0, x1, y0, y1 = 0.0, 0.0, 0.0, 0.0
    for stroke in strokes:
        for x, y in stroke:
            x0, x1 = min(x0, float(x)), max(x1, float(x))
            y0, y1 = min(y0, float(y)), max(y1, float(y))
    b = max(x1 - x0, y1 - y0)
    moved = [np.array(strokes[0], dtype=np.float64)]
    for stroke, (e_x, e_y) in zip(strokes[1:], noise[1:], strict=True):
        moved.append(np.array([(x + e_x * b * scale, y + e_y * b * scale) for x, y in stroke], dtype=np.float64))
    return moved


def node_box(points: FloatArray) -> Box:
    """METHOD 4: a node's bounding box.

    Args:
        points: float64 [n, 2], absolute (x, y), n >= 1.

    Returns:
        (x0, x1, y0, y1), in the units of `points`.
    """
    return (
        min(float(x) for x, _ in points),
        max(float(x) for x, _ in points),
        min(float(y) for _, y in points),
        max(float(y) for _, y in points),
    )


def _third(value: float, low: float, high: float) -> int:
    """METHOD 4: column(v) or row(v): 0 below the box, 1 within it (edges included), 2 above it."""
    if value < low:
        return 0
    if value > high:
        return 2
    return 1


def relation(box_i: Box, box_j: Box) -> list[list[int]]:
    """METHOD 4: the relation of node j to node i: the perimeter of the block of i's grid cells that j's box covers.

    Args:
        box_i: (x0, x1, y0, y1) of the node that defines the grid.
        box_j: (x0, x1, y0, y1) of the other node.

    Returns:
        3 lists of 3 numbers, each 0 or 1, indexed [u][v], with u the column and v the row.
    """
    left_i, right_i, top_i, bottom_i = box_i
    left_j, right_j, top_j, bottom_j = box_j
    a, b = _third(left_j, left_i, right_i), _third(right_j, left_i, right_i)
    c, d = _third(top_j, top_i, bottom_i), _third(bottom_j, top_i, bottom_i)
    cells = [[0, 0, 0], [0, 0, 0], [0, 0, 0]]
    for u in range(3):
        for v in range(3):
            if a <= u <= b and c <= v <= d and (u in {a, b} or v in {c, d}):
                cells[u][v] = 1
    return cells


def adjacency(boxes: list[Box]) -> list[list[int]]:
    """METHOD 4: the nine graphs of one sketch, as nine bits for each ordered pair of nodes.

    Args:
        boxes: n boxes (x0, x1, y0, y1).

    Returns:
        n lists of n integers below 512; bit k = 3u + v of entry [i][j] is A_k[i, j] = relation(i, j, u, v).
    """
    pairs = [[0 for _ in boxes] for _ in boxes]
    for i, box_i in enumerate(boxes):
        for j, box_j in enumerate(boxes):
            cells = relation(box_i, box_j)
            for u in range(3):
                for v in range(3):
                    pairs[i][j] += cells[u][v] * 2 ** (3 * u + v)
    return pairs


def translate(
    strokes: Sequence[FloatArray], clean: Sequence[FloatArray], shares: tuple[float, float], scale: float
) -> list[FloatArray]:
    """METHOD 8, translation: move a whole sketch by u / scale, u between -0.8 (min + 24) and 0.8 (24 - max).

    Args:
        strokes: the strokes to move: for each, a float64 [n, 2] array of absolute normalised (x, y).
        clean: the undisturbed strokes of the sketch; their bounds (including the origin) limit the move.
        shares: for x and y, the position of u between its first limit (0) and its second (1).
        scale: scale of the data set.

    Returns:
        The moved strokes, with the shapes of `strokes`.
    """
    moves = []
    for axis, share in enumerate(shares):
        values = [0.0] + [float(point[axis]) * scale for stroke in clean for point in stroke]
        first_end = -0.8 * (min(values) + 24.0)
        second_end = 0.8 * (24.0 - max(values))
        u = (1.0 - share) * first_end + share * second_end
        moves.append(u / scale)
    return [np.array([(x + moves[0], y + moves[1]) for x, y in stroke], dtype=np.float64) for stroke in strokes]


def may_drop(stroke3: npt.NDArray[np.integer] | FloatArray) -> list[bool]:
    """METHOD 8: whether augmentation may drop each point: never a stroke's first three points or its last.

    Args:
        stroke3: [N, 3], rows (dx, dy, pen_lift).

    Returns:
        N booleans, one for each point.
    """
    answers = []
    place_in_stroke = 0
    for row in stroke3:
        is_last = row[2] == 1
        answers.append(place_in_stroke >= 3 and not is_last)
        place_in_stroke = 0 if is_last else place_in_stroke + 1
    return answers


def augment(stroke3: FloatArray, scale_xy: tuple[float, float], dropped: list[bool]) -> FloatArray:
    """METHOD 8: scale x and y, and add a dropped point's offset to the kept point before it.

    Args:
        stroke3: float64 [N, 3], rows (dx, dy, pen_lift).
        scale_xy: the factors for x and y.
        dropped: N booleans, true only where `may_drop` is true.

    Returns:
        float64 [N - number of dropped points, 3], in the units of `stroke3`.

    Raises:
        ValueError: if `dropped` includes a point that must be kept.
    """
    kept: list[list[float]] = []
    for (dx, dy, pen_lift), allowed, is_dropped in zip(stroke3, may_drop(stroke3), dropped, strict=True):
        if is_dropped and not allowed:
            raise ValueError("a stroke's first three points and its last point are never dropped")
        if is_dropped:
            kept[-1][0] += dx * scale_xy[0]
            kept[-1][1] += dy * scale_xy[1]
        else:
            kept.append([dx * scale_xy[0], dy * scale_xy[1], pen_lift])
    return np.array(kept, dtype=np.float64)
