"""Plans of buses and cars, driving to the left."""

from collections.abc import Iterator

from sgloc.sketch.synthetic.curves import Curve, Frame, line, swing
from sgloc.sketch.synthetic.jitter import Hand, Part
from sgloc.sketch.synthetic.parts import wheels


def bus(hand: Hand) -> Iterator[Part]:
    """Plan a bus: a long box on wheels with a row of windows, a door at the front, and a light."""
    body = Frame(0, 0, hand.about(1.6), hand.about(0.7))
    front = hand.choose(-1.0, -1.0, -1.0, -1.35)
    yield [hand.box(body) if front == -1 else _bonneted(body, front)]
    axles = hand.choose([0.62 * front, 0.62], [0.62 * front, 0.62], [0.6 * front, 0.45, 0.77])
    yield wheels(hand, [body.at(u, 1.05) for u in axles], hand.about(0.24))
    yield _windows(hand, body)
    door = body.inside(-0.8, 0.2, 0.12, 0.72).path((-1, 1), (-1, -1), (1, -1), (1, 1))
    yield [line(*door)] if hand.maybe(0.6) else []
    yield [line(*body.path((-0.6, 0.35), (0.97, 0.35)))] if hand.maybe(0.35) else []
    yield [hand.loop(body.dot(front + 0.06, 0.55, 0.08))] if hand.maybe(0.4) else []


def _bonneted(body: Frame, front: float) -> Curve:
    """Draw the outline of a bus whose engine is in front of its cabin."""
    return line(*body.path((-0.98, -1), (1, -1), (1, 1), (front, 1), (front, 0.15), (-1, 0), (-1, -0.97)))


def _windows(hand: Hand, body: Frame) -> Part:
    """Draw a row of boxes in the upper half of the body, or one line along it with lines up to the roof."""
    are_boxes, num_windows = hand.maybe(0.75), hand.count(3, 5)
    if are_boxes:
        width, height = 0.62 * 1.6 / (2 * num_windows), hand.about(0.24)
        places = [-0.55 + 1.4 * (window + 0.5) / num_windows for window in range(num_windows)]
        return [hand.box(body.inside(u, -0.4, width, height)) for u in places]
    bars = [-0.62 + 1.5 * bar / num_windows for bar in range(num_windows)]
    return [line(*body.path((-0.98, 0.0), (0.98, 0.0))), *(line(*body.path((u, -0.97), (u, -0.02))) for u in bars)]


def car(hand: Hand) -> Iterator[Part]:
    """Plan a car in side view: a cabin with windows on a longer body, and wheels below the body."""
    body = Frame(0, 0.1, hand.about(1.35, 0.08), hand.about(0.3))
    cabin = Frame(hand.between(-0.05, 0.2), -0.55, hand.about(0.75, 0.08), hand.about(0.36))
    roof = hand.between(0.5, 0.8)
    if hand.maybe(0.6):
        yield [_outline(body, cabin, roof)]
    else:
        yield [hand.box(body)]
        yield [swing(*cabin.path((-1, 1), (-roof, -0.4), (0, -1), (roof, -0.4), (1, 1)))]
    yield wheels(hand, [body.at(u, 1.0) for u in (-0.58, 0.58)], hand.about(0.29))
    yield _car_windows(hand, cabin, roof) if hand.maybe(0.85) else []
    yield [line(*body.path((0.02, -0.8), (0.04, 0.75)))] if hand.maybe(0.45) else []
    yield [line(*body.path((0.12, -0.45), (0.26, -0.45)))] if hand.maybe(0.4) else []
    yield [hand.loop(body.inside(-0.92, -0.2, 0.06, 0.24))] if hand.maybe(0.45) else []
    yield [line(*body.path((1.0, 0.6), (1.14, 0.6), (1.14, 0.95), (1.0, 0.95)))] if hand.maybe(0.3) else []


def _outline(body: Frame, cabin: Frame, roof: float) -> Curve:
    """Draw body and cabin in one line."""
    above = cabin.path((-1.15, 0.9), (-roof, -1), (roof, -1), (1.1, 0.85))
    return line(*body.path((-1, 1), (-1, -0.6)), *above, *body.path((1, -0.6), (1, 1), (-0.97, 1)), softness=0.14)


def _car_windows(hand: Hand, cabin: Frame, roof: float) -> Part:
    """Draw two windows with slanting outer sides, or a bar between the front and back seats."""
    if hand.maybe(0.25):
        return [line(*cabin.path((0, -0.95), (0.03, 0.95)))]
    lean = 0.8 * roof - 0.13
    pane = [(0.08, -0.65), (lean, -0.65), (0.75, 0.65), (0.08, 0.65), (0.08, -0.6)]
    return [line(*cabin.path(*((side * u, v) for u, v in pane))) for side in (-1, 1)]
