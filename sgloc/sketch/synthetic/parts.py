"""Parts that more than one kind of drawing has."""

from sgloc.sketch.synthetic.curves import Curve, Frame, Point
from sgloc.sketch.synthetic.jitter import Hand, Part


def eyes(hand: Hand, *frames: Frame) -> Part:
    """Draw eyes of one style: small dots, rings, or rings with a pupil."""
    style = hand.choose("dot", "dot", "dot", "ring", "ring", "pupil")
    shrink = {"dot": 0.5, "ring": 1.0, "pupil": 1.15}[style]
    drawn = []
    for frame in frames:
        drawn.append(hand.loop(frame.inside(0, 0, shrink, hand.about(shrink))))
        if style == "pupil":
            drawn.append(hand.loop(frame.inside(hand.between(-0.3, 0.3), hand.between(0, 0.3), 0.35, 0.35)))
    return drawn


def pointed_ear(hand: Hand, head: Frame, angle: float, width: float, length: float) -> Curve:
    """Draw a triangular ear on a head's rim, `width` degrees to both sides, `length` of the head's radius high."""
    tip = head.rim(angle + hand.between(-6, 6), 1 + hand.about(length))
    return hand.line(head.rim(angle - width), tip, head.rim(angle + width))


def round_ear(hand: Hand, head: Frame, angle: float, width: float, length: float) -> Curve:
    """Draw a rounded ear in the place of a pointed one."""
    reach = 1 + hand.about(length)
    shoulders = [head.rim(angle + side * 0.9 * width, 0.35 + 0.65 * reach) for side in (-1, 1)]
    return hand.swing(
        head.rim(angle - width), shoulders[0], head.rim(angle, reach), shoulders[1], head.rim(angle + width)
    )


def hanging_ear(hand: Hand, head: Frame, angle: float, width: float, length: float) -> Curve:
    """Draw an ear that is folded over outwards, in the place of a pointed one."""
    outwards = 1 if -90 < angle < 90 else -1
    return hand.line(
        head.rim(angle - outwards * width),
        head.rim(angle, 1 + 0.5 * hand.about(length)),
        head.rim(angle + 1.6 * outwards * width, 1 + 0.6 * hand.about(length)),
        head.rim(angle + outwards * width),
        softness=0.2,
    )


def legs(hand: Hand, body: Frame, front: float, back: float, length: float, width: float) -> Part:
    """Draw legs of one style below a body, four or only the nearer two: sticks, with feet or not, or outlines.

    Args:
        hand: the hand that draws.
        body: the body whose lower rim the legs begin at.
        front: where along the body the front legs stand, in half widths from the middle.
        back: where the hind legs stand.
        length: from the body's lowest point to the ground, in the drawing's unit.
        width: of a leg that is not a stick, in the drawing's unit.
    """
    style = hand.choose("stick", "foot", "outline", "outline")
    apart = 1.8 * width / body.half_width
    drawn = []
    for place in [front, front + apart, back - apart, back] if hand.maybe(0.65) else [front, back]:
        x, top = body.at(place, 0.95 * (1 - place * place) ** 0.5)
        ground = body.at(0, 1)[1] + hand.about(length, 0.06)
        lean = hand.between(-0.3, 0.3) * width
        if style == "outline":
            left, right = x - width / 2, x + width / 2
            drawn.append(hand.line((left, top), (left + lean, ground), (right + lean, ground), (right, top)))
        else:
            foot = [(x + lean - 0.8 * width, ground)] if style == "foot" else []
            drawn.append(hand.line((x, top), (x + lean, ground), *foot))
    return drawn


def smile(hand: Hand, face: Frame, v: float, half_width: float, depth: float) -> Curve:
    """Draw a mouth at height `v` of a face, turned up at its ends; its measures in half widths and half heights."""
    return hand.swing(*face.path((-half_width, v), (0, v + depth), (half_width, v)))


def wheels(hand: Hand, axles: list[Point], radius: float) -> Part:
    """Draw wheels about their axles, all with a hub or all without."""
    frames = [Frame(x, y, hand.about(radius, 0.08), hand.about(radius, 0.08)) for x, y in axles]
    tyres = [hand.loop(frame) for frame in frames]
    return tyres + [hand.loop(frame.inside(0, 0, 0.4, 0.4)) for frame in frames] if hand.maybe(0.35) else tyres
