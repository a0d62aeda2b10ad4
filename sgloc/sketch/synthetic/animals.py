"""Plans of pigs, cats, horses and giraffes, facing left."""

from collections.abc import Iterator

from sgloc.sketch.synthetic.curves import Curve, Frame, line, spiral, swing, zigzag
from sgloc.sketch.synthetic.jitter import Hand, Part
from sgloc.sketch.synthetic.parts import ear, eyes, legs, smile


def pig(hand: Hand) -> Iterator[Part]:
    """Plan a pig's face, or a pig in side view with its face turned to the viewer."""
    if hand.maybe(0.55):
        yield from _pig_face(hand, Frame(0, 0, 1, hand.about(0.9)))
        return
    body = Frame(0, 0, 1, hand.about(0.62))
    yield [hand.loop(body)]
    yield from _pig_face(hand, Frame(-0.9, hand.between(-0.35, -0.05), hand.about(0.48), hand.about(0.44)))
    yield legs(hand, body, front=-0.55, back=0.6, length=hand.about(0.28), width=0.15)
    yield [spiral(body.rim(-15, 1.14), hand.about(0.14), hand.between(0.9, 1.5))] if hand.maybe(0.85) else []


def _pig_face(hand: Hand, head: Frame) -> Iterator[Part]:
    """Plan a round head with ears, eyes and a snout with nostrils."""
    yield [hand.loop(head)]
    style = hand.choose("pointed", "pointed", "round", "hanging")
    yield [ear(hand, style, head, angle, 17, 0.4) for angle in (-132, -48)]
    snout = head.inside(0, hand.between(0.15, 0.35), hand.about(0.38), hand.about(0.28))
    yield [hand.loop(snout)]
    yield _two_eyes(hand, head, hand.about(0.4), hand.between(-0.4, -0.22), 0.11)
    if hand.maybe(0.8):
        nostrils = [snout.inside(side * 0.4, 0, hand.about(0.16), hand.about(0.24)) for side in (-1, 1)]
        rings = hand.maybe(0.3)
        yield [hand.loop(one) if rings else line(*one.path((0, -1), (0, 1))) for one in nostrils]
    yield [smile(hand, head, 0.66, 0.25, 0.14)] if hand.maybe(0.3) else []


def _two_eyes(hand: Hand, head: Frame, apart: float, height: float, radius: float) -> Part:
    """Draw eyes on both sides of a face's centre line; `radius` is in half widths of the head."""
    return eyes(hand, *(head.dot(side * apart, height, radius * head.half_width) for side in (-1, 1)))


def cat(hand: Hand) -> Iterator[Part]:
    """Plan a cat's face, a cat sitting below its face, or a cat standing with its tail up."""
    pose = hand.choose("face", "face", "sitting", "standing")
    if pose == "face":
        yield from _cat_face(hand, Frame(0, 0, 1, hand.about(0.85)), hand.choose(0, 1, 2, 2, 3))
    elif pose == "sitting":
        body = Frame(0.1, 1.55, hand.about(0.78), 1.0)
        yield [swing((-0.4, 0.7), *body.path((-0.8, 0), (-0.95, 0.8), (0, 1), (0.95, 0.8), (0.8, -0.1)), (0.5, 0.65))]
        yield from _cat_face(hand, Frame(0, 0, 0.85, hand.about(0.72)), hand.choose(0, 0, 2))
        yield [swing(*body.path((0.9, 0.75), (1.6, 0.7), (1.9, 0.2), (1.6, hand.between(-0.6, 0.1))))]
        paws = [body.path((side * 0.25, 0.1), (side * 0.28, 0.95)) for side in (-1, 1)]
        yield [swing(*paw) for paw in paws] if hand.maybe(0.8) else []
    else:
        body = Frame(0, 0, 1, hand.about(0.45))
        yield [hand.loop(body)]
        yield from _cat_face(hand, Frame(-1.0, -0.6, hand.about(0.5), hand.about(0.44)), hand.choose(0, 0, 2))
        yield legs(hand, body, front=-0.65, back=0.7, length=hand.about(0.5), width=0.14)
        yield [swing(body.at(0.95, -0.2), (1.35, -0.4), (1.3, -0.85), (hand.between(1.3, 1.7), -1.2))]


def _cat_face(hand: Hand, head: Frame, num_whiskers: int) -> Iterator[Part]:
    """Plan a wide head with pointed ears, eyes, a small nose with the mouth below, and whiskers on both sides."""
    if hand.maybe(0.3):
        yield [_eared_outline(hand, head)]
    else:
        yield [hand.loop(head)]
        yield [ear(hand, "pointed", head, angle, 20, 0.55) for angle in (-128, -52)]
    yield _two_eyes(hand, head, hand.about(0.38), hand.between(-0.3, -0.15), 0.12)
    nose = head.inside(0, hand.between(0.1, 0.25), 0.11, 0.1)
    yield [line(*nose.path((-1, -1), (1, -1), (0, 1), (-1, -1)))]
    yield [
        line(*head.path((side * 0.45, 0.2 + 0.12 * place), (side * hand.about(1.2), 0.15 + 0.3 * place)))
        for side in (-1, 1)
        for place in range(num_whiskers)
    ]
    left, right = (head.path((side * 0.3, 0.48), (side * 0.15, 0.58)) for side in (-1, 1))
    yield [swing(*left, nose.at(0, 1.2), *reversed(right))] if hand.maybe(0.7) else []


def _eared_outline(hand: Hand, head: Frame) -> Curve:
    """Draw a head and its pointed ears in one line that starts at an ear and goes around the chin."""
    reach = 1 + hand.about(0.5)
    chin = [head.rim(angle) for angle in range(-30, 211, 20)]
    crown = [head.rim(-130, reach), head.rim(-108), head.rim(-72), head.rim(-50, reach), head.rim(-28)]
    return line(*chin, *crown, softness=0.1)


def horse(hand: Hand) -> Iterator[Part]:
    """Plan a horse in side view, built from parts or outlined in one line, or its head alone."""
    pose = hand.choose("parts", "outline", "head")
    if pose == "head":
        yield from _horse_head(hand)
        return
    yield from _horse_body(hand) if pose == "parts" else _horse_outline(hand)
    for _ in range(hand.count(1, 2)):
        end = hand.between(1.2, 1.4)
        yield [swing((0.92, -0.25), (1.2, -0.15), (end, 0.35), (end - 0.1, hand.between(0.6, 0.9)))]
    yield [zigzag((-0.9, -1.08), (-0.42, -0.38), -hand.about(0.16), hand.count(3, 5))] if hand.maybe(0.8) else []
    yield eyes(hand, Frame(-1.12, -0.95, 0.06, 0.06)) if hand.maybe(0.8) else []
    yield [line((-1.6, -0.62), (-1.4, -0.68))] if hand.maybe(0.4) else []


def _horse_body(hand: Hand) -> Iterator[Part]:
    """Plan a long body with a rising neck, a head that hangs forward, ears and legs."""
    body = Frame(0, 0, 0.95, hand.about(0.42))
    yield [hand.loop(body)]
    yield [swing((-0.75, -0.15), (-0.95, -0.4), (-1.08, -0.68)), swing((-0.3, -0.38), (-0.6, -0.6), (-0.85, -1.08))]
    yield [hand.loop(Frame(-1.25, -0.88, hand.about(0.45), hand.about(0.2), tilt=-32))]
    yield [line((-1.02, -1.1), (-0.95, -hand.about(1.42, 0.05)), (-0.85, -1.05))]
    yield legs(hand, body, front=-0.72, back=0.76, length=hand.about(0.75), width=0.13)


def _horse_outline(hand: Hand) -> Iterator[Part]:
    """Plan head, neck, back and the nearer legs in one line, then the farther legs."""
    ground = hand.about(1.1, 0.06)
    yield [line(
        (-0.9, 0.05), (-1.0, -0.5), (-1.1, -0.68), (-1.45, -0.52), (-1.65, -0.6), (-1.6, -0.78), (-1.1, -1.15),
        (-0.98, -1.4), (-0.85, -1.1), (-0.4, -0.42), (0.2, -0.3), (0.8, -0.42), (1.0, -0.1), (0.95, 0.35),
        (1.0, ground), (0.8, ground), (0.7, 0.4), (0.3, 0.3), (-0.55, 0.35), (-0.6, ground), (-0.8, ground),
        (-0.85, 0.1), softness=0.16,
    )]  # fmt: skip
    yield _far_legs((-0.45, 0.45), 0.35, ground - 0.06, 0.17) if hand.maybe(0.8) else []


def _far_legs(places: tuple[float, float], top: float, ground: float, width: float) -> Part:
    """Draw the outlines of two legs."""
    return [line((x, top), (x, ground), (x + width, ground), (x + width, top)) for x in places]


def _horse_head(hand: Hand) -> Iterator[Part]:
    """Plan a long head in profile on its neck, with ear, eye, nostril, mouth and mane."""
    nose = hand.between(-0.1, 0.1)
    yield [line(
        (-0.15, 1.4), (-0.2, 0.6), (-0.35, 0.25), (-0.95, 0.62 + nose), (-1.25, 0.55 + nose), (-1.3, 0.25 + nose),
        (-0.75, -0.35), (-0.3, -0.85), (0.1, -0.8), (0.5, -0.35), (0.8, 0.4), (0.95, 1.4), softness=0.2,
    )]  # fmt: skip
    yield [line((-0.3, -0.82), (hand.between(-0.3, -0.1), -hand.about(1.3, 0.05)), (0.02, -0.82))]
    yield eyes(hand, Frame(-0.45, -0.3, 0.1, 0.09))
    yield [zigzag((0.08, -0.85), (0.85, 0.6), hand.about(0.22), hand.count(4, 6))] if hand.maybe(0.9) else []
    yield [hand.loop(Frame(-1.12, 0.28 + nose, 0.06, 0.05))] if hand.maybe(0.8) else []
    yield [swing((-1.25, 0.48 + nose), (-1.05, 0.42 + nose), (-0.8, 0.42 + nose))] if hand.maybe(0.7) else []


def giraffe(hand: Hand) -> Iterator[Part]:
    """Plan a giraffe in side view: a neck longer than its body, horns on a small head, spots."""
    top, ground = -hand.about(1.8, 0.08), hand.about(1.25, 0.08)
    yield from _giraffe_body(hand, top, ground) if hand.maybe(0.55) else _giraffe_outline(hand, top, ground)
    yield [line((x, top - 0.12), (x + 0.03, top - hand.about(0.38))) for x in (-0.85, -0.7)]
    yield eyes(hand, Frame(-0.9, top + 0.02, 0.05, 0.05)) if hand.maybe(0.75) else []
    yield [swing((0.68, -0.1), (0.85, 0.05), (0.9, hand.about(0.45)))] if hand.maybe(0.8) else []
    if hand.maybe(0.75):
        spots = [Frame(-0.62 + 0.1 * at, top * (0.75 - 0.22 * at), 0.07, 0.09) for at in range(hand.count(1, 2))]
        spots += [Frame(u, hand.between(-0.15, 0.12), 0.11, 0.09) for u in (-0.3, 0.05, 0.38)[: hand.count(0, 3)]]
        yield [hand.loop(spot) for spot in spots]


def _giraffe_body(hand: Hand, top: float, ground: float) -> Iterator[Part]:
    """Plan an oval body, two long lines for the neck, a small oval head and long legs."""
    body = Frame(0, 0, 0.72, hand.about(0.36))
    yield [hand.loop(body)]
    yield [line((-0.66, -0.1), (-0.85, top + 0.14)), line((-0.32, -0.32), (-0.62, top + 0.1))]
    yield [hand.loop(Frame(-0.88, top, hand.about(0.3), hand.about(0.16), tilt=-14))]
    yield legs(hand, body, front=-0.75, back=0.78, length=ground - 0.36, width=0.11)


def _giraffe_outline(hand: Hand, top: float, ground: float) -> Iterator[Part]:
    """Plan head, neck, back and the nearer legs in one line, then the farther legs."""
    yield [line(
        (-0.68, 0.0), (-0.86, top + 0.2), (-1.2, top + 0.18), (-1.22, top + 0.02), (-0.85, top - 0.15),
        (-0.6, top - 0.08), (-0.4, -0.45), (0.3, -0.34), (0.68, -0.2), (0.7, 0.3), (0.72, ground), (0.56, ground),
        (0.5, 0.35), (-0.45, 0.35), (-0.48, ground), (-0.64, ground), (-0.68, 0.1), softness=0.12,
    )]  # fmt: skip
    yield _far_legs((-0.36, 0.3), 0.36, ground - 0.05, 0.13) if hand.maybe(0.7) else []
