"""Parts shared by several categories."""

from sgloc.sketch.synthetic.curves import Curve, Frame, Point, line, swing
from sgloc.sketch.synthetic.jitter import Hand, Part


def eyes(hand: Hand, *frames: Frame) -> Part:
    """Draw eyes in one style: small dots, rings, or rings with a pupil."""
    style = hand.choose("dot", "dot", "dot", "ring", "ring", "pupil")
    shrink = {"dot": 0.5, "ring": 1.0, "pupil": 1.15}[style]
    drawn = []
    for frame in frames:
        drawn.append(hand.loop(frame.inside(0, 0, shrink, hand.about(shrink))))
        if style == "pupil":
            drawn.append(hand.loop(frame.inside(hand.between(-0.3, 0.3), hand.between(0, 0.3), 0.35, 0.35)))
    return drawn


def ear(hand: Hand, style: str, head: Frame, angle: float, width: float, length: float) -> Curve:
    """Draw an ear on the rim of a head: pointed, round, or hanging (folded outwards).

    Args:
        hand: the hand that draws.
        style: "pointed", "round" or "hanging".
        head: the frame of the head.
        angle: position of the ear on the rim, in degrees.
        width: extent of the ear to either side of the angle, in degrees.
        length: height of the ear above the rim, in radii of the head.
    """
    if style == "pointed":
        tip = head.rim(angle + hand.between(-6, 6), 1 + hand.about(length))
        return line(head.rim(angle - width), tip, head.rim(angle + width))
    if style == "round":
        reach = 1 + hand.about(length)
        left, right = (head.rim(angle + side * 0.9 * width, 0.35 + 0.65 * reach) for side in (-1, 1))
        return swing(head.rim(angle - width), left, head.rim(angle, reach), right, head.rim(angle + width))
    side = width if -90 < angle < 90 else -width
    fold, tip = (
        head.rim(angle, 1 + 0.5 * hand.about(length)),
        head.rim(angle + 1.6 * side, 1 + 0.6 * hand.about(length)),
    )
    return line(head.rim(angle - side), fold, tip, head.rim(angle + side), softness=0.2)


def legs(hand: Hand, body: Frame, front: float, back: float, length: float, width: float) -> Part:
    """Draw four legs, or only the two nearer ones, below a body in one style: outlines, or sticks with or without feet.

    Args:
        hand: the hand that draws.
        body: the frame of the body; the legs start at its lower rim.
        front: position of the front legs along the body, in half widths from the centre.
        back: position of the hind legs, likewise.
        length: distance from the body's lowest point to the ground, in the drawing's unit.
        width: width of an outlined leg, in the drawing's unit.
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
            drawn.append(line((left, top), (left + lean, ground), (right + lean, ground), (right, top)))
        else:
            foot = [(x + lean - 0.8 * width, ground)] if style == "foot" else []
            drawn.append(line((x, top), (x + lean, ground), *foot))
    return drawn


def smile(hand: Hand, face: Frame, v: float, half_width: float, depth: float) -> Curve:
    """Draw a mouth at height `v` of a face, its ends turned up; all measures are in half widths and half heights."""
    return swing(*face.path((-half_width, v), (0, v + depth), (half_width, v)))


def wheels(hand: Hand, axles: list[Point], radius: float) -> Part:
    """Draw wheels centred on their axles, either all with a hub or all without."""
    frames = [Frame(x, y, hand.about(radius, 0.08), hand.about(radius, 0.08)) for x, y in axles]
    tyres = [hand.loop(frame) for frame in frames]
    return tyres + [hand.loop(frame.inside(0, 0, 0.4, 0.4)) for frame in frames] if hand.maybe(0.35) else tyres
