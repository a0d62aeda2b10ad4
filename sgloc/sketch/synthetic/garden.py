"""Plans of bees and flowers."""

from collections.abc import Iterator

import numpy as np

from sgloc.sketch.synthetic.curves import Curve, Frame, Point, line, swing
from sgloc.sketch.synthetic.jitter import Hand, Part
from sgloc.sketch.synthetic.parts import eyes, smile


def bee(hand: Hand) -> Iterator[Part]:
    """Plan a bee flying to the left, with stripes across its body, wings above it and a sting behind."""
    body = Frame(0, 0, 1, hand.about(0.56), tilt=hand.between(-28, 28))
    yield [hand.loop(body)]
    yield _stripes(hand, body, hand.count(2, 4))
    spread, lean, length, root = hand.between(14, 32), hand.between(-12, 25), hand.about(0.95), hand.between(-0.2, 0.2)
    yield [
        _drop(hand, body.at(root + 0.12 * side, -0.85), lean + side * spread, hand.about(0.36) * length, length)
        for side in (-1, 1)
    ]
    if hand.maybe(0.6):
        face = Frame(*body.at(-1.28, -0.05), hand.about(0.36), hand.about(0.36))
        yield [hand.loop(face)]
    else:
        face = Frame(*body.at(-0.66, -0.1), 0.3, 0.4)
    yield eyes(hand, face.dot(-0.25, -0.2, 0.08))
    yield [_feeler(hand, face, angle) for angle in (-125, -85)] if hand.maybe(0.75) else []
    yield [line(body.rim(-9), body.at(hand.about(1.3, 0.06), 0), body.rim(9))] if hand.maybe(0.75) else []
    yield [smile(hand, face, 0.35, 0.4, 0.25)] if hand.maybe(0.4) else []


def _stripes(hand: Hand, body: Frame, num_stripes: int) -> Part:
    """Draw lines across a body from its upper rim to its lower one."""
    bulge = hand.between(-0.02, 0.14)
    columns = [-0.3 + 1.05 * stripe / num_stripes for stripe in range(num_stripes)]
    ends = [(u, 0.97 * (1 - u * u) ** 0.5) for u in columns]
    return [swing(*body.path((u, -v), (u + bulge, 0), (u, v))) for u, v in ends]


def _feeler(hand: Hand, head: Frame, angle: float) -> Curve:
    """Draw a feeler: a line from the rim of a head that bends forward at its end."""
    return swing(head.rim(angle), head.rim(angle - 2, 1.6), head.rim(angle - 18, hand.about(2.1)))


def _drop(hand: Hand, root: Point, lean: float, half_width: float, length: float) -> Curve:
    """Draw a wing, leaf or petal from its root up one side, around the tip and back; `lean` is degrees from upright."""
    frame = Frame(*root, half_width, hand.about(length), tilt=lean)
    side = hand.about(0.9)
    places = (-0.8, -0.35), (-side, -0.75), (0, -1.02), (1, -0.7), (0.75, -0.3), (0.05, -0.02)
    return swing(root, *frame.path(*places))


def flower(hand: Hand) -> Iterator[Part]:
    """Plan a flower on its stem: petals around a centre, or a tulip's cup; leaves beside the stem."""
    head = Frame(0, 0, 1, hand.about(0.95, 0.06))
    tulip = hand.maybe(0.2)
    if tulip:
        yield [_tulip(hand, head)]
    else:
        yield from _blossom(hand, head, hand.about(0.36))
    foot = Frame(hand.between(-0.35, 0.35), hand.between(2.0, 3.0), 1, 1)
    top = head.at(0, hand.between(0.65, 1.0))
    stem = swing(top, ((foot.x + hand.between(-0.3, 0.3)) / 2, (1 + foot.y) / 2), (foot.x, foot.y))
    if tulip or hand.maybe(0.9):
        yield [stem]
        joint = tuple(stem[len(stem) * 2 // 3].tolist())
        for side in (-1, 1):
            if hand.maybe(0.55):
                yield [_drop(hand, joint, side * hand.between(45, 70), 0.2, 0.75)]
        yield [swing(*foot.path((-1.2, 0.03), (0, -0.03), (1.2, 0.03)))] if hand.maybe(0.15) else []


def _blossom(hand: Hand, head: Frame, middle: float) -> Iterator[Part]:
    """Plan a ring of petals around a round centre, as separate petals or all in one line."""
    num_petals = hand.count(5, 8)
    first = hand.between(-110, -70)
    angles = [first + 360 * petal / num_petals for petal in range(num_petals)]
    yield [hand.loop(head.inside(0, 0, middle, middle))]
    if hand.maybe(0.45):
        yield [_scallops(hand, head, middle, angles)]
        return
    width = 0.68 * np.pi * (1 + middle) / 2 / num_petals
    yield [_drop(hand, head.rim(angle, middle), angle + 90, hand.about(width), 1 - middle) for angle in angles]


def _scallops(hand: Hand, head: Frame, middle: float, angles: list[float]) -> Curve:
    """Draw all petals in one line that returns close to the centre between neighbouring petals."""
    half, valley = 180 / len(angles), hand.between(1.1, 1.5) * middle
    points = [head.rim(angles[0] - half, valley)]
    for angle in angles:
        petal = ((-0.75, 0.8), (0.0, 1.0), (0.75, 0.8))
        points += [head.rim(angle + share * half, hand.about(reach, 0.05)) for share, reach in petal]
        points.append(head.rim(angle + half, valley))
    return swing(*points)


def _tulip(hand: Hand, head: Frame) -> Curve:
    """Draw a cup with three points along its rim."""
    dip = hand.between(-0.35, 0.0)
    half = [(0.6, 0.75), (0.8, 0), (0.75, -0.95), (0.35, dip)]
    left = [(-u, v) for u, v in half]
    return line(*head.path((0, 1), *left, (0, -1), *reversed(half), (0, 1)), softness=0.12)
