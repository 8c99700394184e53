"""What stands in a `streets` scene: buildings, trees, walls, poles, barriers.

One function draws one object, colour and class in one call. Lengths are metres: `x` right of the
road's centre line, `y` up, `z` ahead of the camera. `draws` gives the random numbers.
"""

import math

from segjax.data.streets.painter import (
    BLACK,
    FAR,
    FOLIAGE,
    GLASS,
    GLOWING,
    MASONRY,
    PLAIN,
    ROADSIDE,
    STEEL,
    VOID,
    WHITE,
    Panel,
    Upright,
    shaded,
)


def building(painter, draws, x, start, end, floors):
    """A house beside the road, its front at x, from z = start to end."""
    side = -1 if x < 0 else 1
    wall = draws.colour((0.03, 0.45), (0.35, 0.95), draws.choice(((0.0, 0.14), (0.5, 0.65))))
    pane = draws.choice((GLASS, (90, 105, 120), BLACK))
    trim = shaded(wall, draws.choice((0.7, 1.25)))
    high, deep, ledge = 3.2 * floors, draws.number(7, 12), draws.chance(0.5)
    tall, wide = draws.number(0.9, 1.6), draws.number(0.45, 0.75)
    shops, glow = draws.colour((0.3, 0.9)), painter.air.dusk
    sx, sz = painter.air.cast[0] * high, painter.air.cast[1] * high
    if painter.air.shadow and side * sx < 0:
        painter.shadow(((x, start), (x, end), (x + sx, end + sz), (x + sx, start + sz)))
    front, flank = ((x, start), (x, end)), ((x, start), (x + side * deep, start))
    for ends, span in ((flank, deep), (front, end - start)):
        panel = Panel(painter, *ends[:: side if ends is front else -side], FAR, MASONRY)
        if not panel.seen:
            continue
        panel.rect(0, 1, 0, high, wall)
        panel.rect(0, 1, high - 0.5, high, trim)
        columns = max(1, int(span / 2.6))
        for base in (3.2 * floor for floor in range(floors)):
            if ledge and base:
                panel.rect(0, 1, base - 0.15, base + 0.2, trim)
            if base and start > 32:  # too far to tell the windows apart
                panel.rect(0.1, 0.9, base + 1.0, base + 1.2 + tall, shaded(pane, 1.2))
                continue
            for column in range(columns):
                u, w = (column + 0.5) / columns, wide / columns / 2
                if base == 0:  # shops: shutters and open doors, some under a sign
                    panel.rect(u - 1.4 * w, u + 1.4 * w, 0, 2.4, draws.choice((pane, STEEL, trim)))
                    if draws.chance(0.5):
                        panel.rect(u - 1.5 * w, u + 1.5 * w, 2.45, 3.1, shops)
                    continue
                light = ((250, 205, 120), GLOWING) if draws.chance(glow) else (pane, PLAIN)
                panel.rect(u - w, u + w, base + 1.0, base + 1.2 + tall, *light)
                if draws.chance(0.2):  # a balcony
                    panel.rect(u - 1.2 * w, u + 1.2 * w, base + 0.9, base + 1.7, trim)


def tree(painter, draws, x, z, high):
    """A trunk and a crown of leaf clumps, lit from the sun's side."""
    body = Upright(painter, x, z, FAR)
    leaf = draws.colour((0.25, 0.6), (0.25, 0.55), (0.17, 0.38))
    wide, slim = high * draws.number(0.28, 0.45), draws.number(0.12, 0.25)
    painter.cast(x, z, wide * 0.8, high)
    trunk = draws.colour((0.2, 0.4), (0.2, 0.45), (0.05, 0.1))
    body.poly(((-slim, 0), (-slim * 0.6, high * 0.6), (slim * 0.6, high * 0.6), (slim, 0)), trunk)
    middle, sunny = high * 0.7, math.copysign(1, painter.air.sun[0])
    for ring in range(0, 22, 1 if z < 30 else 2):
        angle, far = draws.number(0, 6.3), draws.number() ** 0.5 * (1 - ring / 40)
        right, up = wide * far * math.cos(angle), high * 0.3 * far * math.sin(angle)
        tone = 0.6 + 0.022 * ring + 0.25 * up / (high * 0.3) + 0.12 * sunny * right / wide
        size = draws.number(0.25, 0.42) * wide
        body.disc(right, middle + up, size, size * 0.9, shaded(leaf, tone), FOLIAGE)


def wall(painter, draws, x, start, end, kind, high, colour):
    """A stretch of boundary along the road: wall, railing, sheet fence or hedge."""
    ends = ((x, end), (x, start)) if x < painter.camera.offset else ((x, start), (x, end))
    panel = Panel(painter, *ends, FAR if kind == "hedge" else ROADSIDE, MASONRY)
    if kind == "hedge":
        panel.rect(0, 1, 0, high, (70, 95, 45), FOLIAGE)
        panel.rect(0, 1, high * 0.8, high, (95, 125, 60), FOLIAGE)
        return
    if kind == "railing":
        panel.rect(0, 1, 0, high, shaded(STEEL, 0.75))  # a mesh behind the bars
        for u in range(5):
            panel.rect(u / 5, u / 5 + 0.09, 0, high, colour)
        for up in (0.3, 0.97):
            panel.rect(0, 1, high * up - 0.12, high * up, colour)
        return
    panel.rect(0, 1, 0, high, colour)
    if kind == "sheets":
        for u in range(6):
            panel.rect(u / 6, u / 6 + 0.07, 0, high, shaded(colour, 0.75))
    else:
        panel.rect(0, 1, 0, 0.3, shaded(colour, 0.7))
        panel.rect(0, 1, high - 0.2, high, shaded(colour, 1.2))
        if draws.chance(0.35):  # a poster or a painted advertisement
            panel.rect(0.15, 0.8, 0.45, high - 0.35, draws.colour((0.2, 0.9), (0.3, 1.0)))
            panel.rect(0.3, 0.65, high * 0.5, high * 0.62, WHITE)


def barrier(painter, draws, x, start, end, colours):
    """Concrete or plastic blocks on the road's edge or middle, striped."""
    for side in (-1, 1):
        edge = x + 0.25 * side
        ends = ((edge, start), (edge, end)) if side < 0 else ((edge, end), (edge, start))
        panel = Panel(painter, *ends, ROADSIDE)
        if panel.seen:
            for k in range(4):
                panel.rect(k / 4, k / 4 + 0.25, 0, 0.95, colours[k % 2])
    front = Upright(painter, x, start, ROADSIDE)
    front.poly(((-0.32, 0), (-0.2, 0.95), (0.2, 0.95), (0.32, 0)), shaded(colours[0], 0.85))


def pole(painter, draws, x, z, kind):
    """A lamp, a traffic light, a sign, a billboard or a kiosk, on solid posts."""
    body = Upright(painter, x, z, ROADSIDE, -1 if x > 0 else 1)
    tone = draws.choice((STEEL, (85, 85, 88), (150, 120, 60), (70, 95, 80), (170, 165, 155)))
    thick, bright = draws.number(0.32, 0.48), draws.colour((0.4, 1.0), (0.4, 0.95))
    high = {"lamp": 7.0, "signal": 3.6, "sign": 2.6, "billboard": 2.4, "kiosk": 2.2}[kind]
    painter.cast(x, z, 0.9 if kind in ("kiosk", "billboard") else thick, high)
    if kind == "kiosk":
        body.rect(-0.65, 0.65, 0, 2.2, tone)
        body.rect(-0.5, 0.5, 0.8, 1.6, bright)
        body.rect(-0.75, 0.75, 2.0, 2.3, shaded(bright, 0.6))
        return
    if kind == "billboard":
        wide, tall = draws.number(1.5, 2.5), draws.number(1.5, 2.5)
        for right in (-0.7 * wide, 0.7 * wide):
            body.rect(right - 0.1, right + 0.1, 0, high, tone)
        body.rect(-wide, wide, high - 0.1, high + tall, tone)
        body.rect(0.1 - wide, wide - 0.1, high, high + tall - 0.1, bright)
        body.rect(0.2 - wide, draws.number(0, wide), high + 0.2, high + 0.5, WHITE)
        body.disc(draws.number(-0.5, 0.5) * wide, high + 0.6 * tall, 0.5, 0.4, draws.colour())
        return
    body.rect(-thick * 0.8, thick * 0.8, 0, 0.8, shaded(tone, 0.8))
    body.rect(-thick / 2, thick / 2, 0, high, tone)
    if kind == "lamp":
        body.limb((0, high - 0.1), (1.7, high + 0.4), 0.16, tone)
        glow = painter.air.dusk > 0
        lamp = (255, 225, 160) if glow else shaded(WHITE, 0.9)
        body.limb((1.3, high + 0.3), (2.2, high + 0.5), 0.26, lamp)
    elif kind == "signal":
        body.rect(-0.28, 0.28, high - 0.3, high + 0.9, BLACK)
        on = draws.whole(0, 2)
        for k, colour in enumerate(((60, 220, 110), (250, 190, 50), (235, 50, 40))):
            light = (colour, GLOWING) if k == on else (shaded(colour, 0.3), PLAIN)
            body.disc(0, high - 0.08 + 0.38 * k, 0.15, 0.16, *light)
    elif draws.chance(0.6):
        body.disc(0, high, 0.7, 0.7, draws.choice(((200, 35, 35), (30, 80, 170))))
        body.disc(0, high, 0.52, 0.52, draws.choice((WHITE, (30, 80, 170))))
        body.rect(-0.2, 0.2, high - 0.07, high + 0.07, draws.choice((BLACK, WHITE)))
    else:
        body.rect(-0.9, 0.9, high - 0.5, high + 0.5, WHITE)
        plate = draws.choice(((25, 110, 70), (30, 80, 170), (225, 175, 40)))
        body.rect(-0.82, 0.82, high - 0.43, high + 0.43, plate)
        body.rect(-0.5, 0.5, high - 0.07, high + 0.07, WHITE)


def heap(painter, draws, x, z):
    """Rubble under a sheet, which no one labelled."""
    body = Upright(painter, x, z, VOID, size=draws.number(0.8, 1.3))
    colour, left = draws.colour((0.05, 0.6)), ((-1, 0), (-0.6, 0.7))
    body.poly((*left, (0.1, 0.9), (0.7, 0.6), (1, 0)), colour)
    body.poly((*left, (-0.1, 0.3), (0.1, 0)), shaded(colour, 0.75))


def cable(painter, draws, reach, z):
    """A cable across the road, `reach` metres to each side: too thin to label."""
    high, sag, slant = draws.number(5, 7.5), draws.number(0.3, 1.0), draws.number(-3, 3)
    steps = [k / 8 for k in range(-8, 9)]
    top = [(reach * s, high - sag * (1 - s * s), z + slant * s) for s in steps]
    low = [(x, y - 0.07, z) for x, y, z in reversed(top)]
    painter.face(top + low, BLACK, VOID)
