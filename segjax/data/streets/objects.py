"""All that stands or moves in a `streets` scene.

One function draws one object, colour and class in one call. Lengths are metres: `x` right of the
road's centre line, `y` up, `z` ahead of the camera. `draws` gives the random numbers.
"""

import itertools
import math

from segjax.data.streets import brush


def building(painter, draws, x, start, end, floors):
    """A house beside the road, its front at x, from z = start to end."""
    side = -1 if x < 0 else 1
    wall = draws.colour((0.03, 0.45), (0.35, 0.95), draws.choice(((0.0, 0.14), (0.5, 0.65))))
    pane = draws.choice((brush.GLASS, (90, 105, 120), brush.BLACK))
    trim = brush.shaded(wall, draws.choice((0.7, 1.25)))
    high, deep, ledge = 3.2 * floors, draws.number(7, 12), draws.chance(0.5)
    tall, wide = draws.number(0.9, 1.6), draws.number(0.45, 0.75)
    shops, glow = draws.colour((0.3, 0.9)), painter.air.dusk
    sx, sz = painter.air.cast[0] * high, painter.air.cast[1] * high
    if painter.air.shadow and side * sx < 0:
        painter.shadow(((x, start), (x, end), (x + sx, end + sz), (x + sx, start + sz)))
    front, flank = ((x, start), (x, end)), ((x, start), (x + side * deep, start))
    for ends, span in ((flank, deep), (front, end - start)):
        panel = brush.Panel(
            painter, *ends[:: side if ends is front else -side], brush.FAR, brush.MASONRY
        )
        if not panel.seen:
            continue
        panel.rect(0, 1, 0, high, wall)
        panel.rect(0, 1, high - 0.5, high, trim)
        columns = max(1, int(span / 2.6))
        for base in (3.2 * floor for floor in range(floors)):
            if ledge and base:
                panel.rect(0, 1, base - 0.15, base + 0.2, trim)
            if base and start > 32:  # too far to tell the windows apart
                panel.rect(0.1, 0.9, base + 1.0, base + 1.2 + tall, brush.shaded(pane, 1.2))
                continue
            for column in range(columns):
                u, w = (column + 0.5) / columns, wide / columns / 2
                if base == 0:  # shops: shutters and open doors, some under a sign
                    panel.rect(
                        u - 1.4 * w, u + 1.4 * w, 0, 2.4, draws.choice((pane, brush.STEEL, trim))
                    )
                    if draws.chance(0.5):
                        panel.rect(u - 1.5 * w, u + 1.5 * w, 2.45, 3.1, shops)
                    continue
                light = (
                    ((250, 205, 120), brush.GLOWING) if draws.chance(glow) else (pane, brush.PLAIN)
                )
                panel.rect(u - w, u + w, base + 1.0, base + 1.2 + tall, *light)
                if draws.chance(0.2):  # a balcony
                    panel.rect(u - 1.2 * w, u + 1.2 * w, base + 0.9, base + 1.7, trim)


def tree(painter, draws, x, z, high):
    """A trunk and a crown of leaf clumps, lit from the sun's side."""
    body = brush.Upright(painter, x, z, brush.FAR)
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
        body.disc(right, middle + up, size, size * 0.9, brush.shaded(leaf, tone), brush.FOLIAGE)


def wall(painter, draws, x, start, end, kind, high, colour):
    """A stretch of boundary along the road: wall, railing, sheet fence or hedge."""
    ends = ((x, end), (x, start)) if x < painter.camera.offset else ((x, start), (x, end))
    panel = brush.Panel(
        painter, *ends, brush.FAR if kind == "hedge" else brush.ROADSIDE, brush.MASONRY
    )
    if kind == "hedge":
        panel.rect(0, 1, 0, high, (70, 95, 45), brush.FOLIAGE)
        panel.rect(0, 1, high * 0.8, high, (95, 125, 60), brush.FOLIAGE)
        return
    if kind == "railing":
        panel.rect(0, 1, 0, high, brush.shaded(brush.STEEL, 0.75))  # a mesh behind the bars
        for u in range(5):
            panel.rect(u / 5, u / 5 + 0.09, 0, high, colour)
        for up in (0.3, 0.97):
            panel.rect(0, 1, high * up - 0.12, high * up, colour)
        return
    panel.rect(0, 1, 0, high, colour)
    if kind == "sheets":
        for u in range(6):
            panel.rect(u / 6, u / 6 + 0.07, 0, high, brush.shaded(colour, 0.75))
    else:
        panel.rect(0, 1, 0, 0.3, brush.shaded(colour, 0.7))
        panel.rect(0, 1, high - 0.2, high, brush.shaded(colour, 1.2))
        if draws.chance(0.35):  # a poster or a painted advertisement
            panel.rect(0.15, 0.8, 0.45, high - 0.35, draws.colour((0.2, 0.9), (0.3, 1.0)))
            panel.rect(0.3, 0.65, high * 0.5, high * 0.62, brush.WHITE)


def barrier(painter, draws, x, start, end, colours):
    """Concrete or plastic blocks on the road's edge or middle, striped."""
    for side in (-1, 1):
        edge = x + 0.25 * side
        ends = ((edge, start), (edge, end)) if side < 0 else ((edge, end), (edge, start))
        panel = brush.Panel(painter, *ends, brush.ROADSIDE)
        if panel.seen:
            for k in range(4):
                panel.rect(k / 4, k / 4 + 0.25, 0, 0.95, colours[k % 2])
    front = brush.Upright(painter, x, start, brush.ROADSIDE)
    front.poly(((-0.32, 0), (-0.2, 0.95), (0.2, 0.95), (0.32, 0)), brush.shaded(colours[0], 0.85))


def pole(painter, draws, x, z, kind):
    """A lamp, a traffic light, a sign, a billboard or a kiosk, on solid posts."""
    body = brush.Upright(painter, x, z, brush.ROADSIDE, -1 if x > 0 else 1)
    tone = draws.choice((brush.STEEL, (85, 85, 88), (150, 120, 60), (70, 95, 80), (170, 165, 155)))
    thick, bright = draws.number(0.32, 0.48), draws.colour((0.4, 1.0), (0.4, 0.95))
    high = {"lamp": 7.0, "signal": 3.6, "sign": 2.6, "billboard": 2.4, "kiosk": 2.2}[kind]
    painter.cast(x, z, 0.9 if kind in ("kiosk", "billboard") else thick, high)
    if kind == "kiosk":
        body.rect(-0.65, 0.65, 0, 2.2, tone)
        body.rect(-0.5, 0.5, 0.8, 1.6, bright)
        body.rect(-0.75, 0.75, 2.0, 2.3, brush.shaded(bright, 0.6))
        return
    if kind == "billboard":
        wide, tall = draws.number(1.5, 2.5), draws.number(1.5, 2.5)
        for right in (-0.7 * wide, 0.7 * wide):
            body.rect(right - 0.1, right + 0.1, 0, high, tone)
        body.rect(-wide, wide, high - 0.1, high + tall, tone)
        body.rect(0.1 - wide, wide - 0.1, high, high + tall - 0.1, bright)
        body.rect(0.2 - wide, draws.number(0, wide), high + 0.2, high + 0.5, brush.WHITE)
        body.disc(draws.number(-0.5, 0.5) * wide, high + 0.6 * tall, 0.5, 0.4, draws.colour())
        return
    body.rect(-thick * 0.8, thick * 0.8, 0, 0.8, brush.shaded(tone, 0.8))
    body.rect(-thick / 2, thick / 2, 0, high, tone)
    if kind == "lamp":
        body.limb((0, high - 0.1), (1.7, high + 0.4), 0.16, tone)
        glow = painter.air.dusk > 0
        lamp = (255, 225, 160) if glow else brush.shaded(brush.WHITE, 0.9)
        body.limb((1.3, high + 0.3), (2.2, high + 0.5), 0.26, lamp)
    elif kind == "signal":
        body.rect(-0.28, 0.28, high - 0.3, high + 0.9, brush.BLACK)
        on = draws.whole(0, 2)
        for k, colour in enumerate(((60, 220, 110), (250, 190, 50), (235, 50, 40))):
            light = (colour, brush.GLOWING) if k == on else (brush.shaded(colour, 0.3), brush.PLAIN)
            body.disc(0, high - 0.08 + 0.38 * k, 0.15, 0.16, *light)
    elif draws.chance(0.6):
        body.disc(0, high, 0.7, 0.7, draws.choice(((200, 35, 35), (30, 80, 170))))
        body.disc(0, high, 0.52, 0.52, draws.choice((brush.WHITE, (30, 80, 170))))
        body.rect(-0.2, 0.2, high - 0.07, high + 0.07, draws.choice((brush.BLACK, brush.WHITE)))
    else:
        body.rect(-0.9, 0.9, high - 0.5, high + 0.5, brush.WHITE)
        plate = draws.choice(((25, 110, 70), (30, 80, 170), (225, 175, 40)))
        body.rect(-0.82, 0.82, high - 0.43, high + 0.43, plate)
        body.rect(-0.5, 0.5, high - 0.07, high + 0.07, brush.WHITE)


def heap(painter, draws, x, z):
    """Rubble under a sheet, which no one labelled."""
    body = brush.Upright(painter, x, z, brush.VOID, size=draws.number(0.8, 1.3))
    colour, left = draws.colour((0.05, 0.6)), ((-1, 0), (-0.6, 0.7))
    body.poly((*left, (0.1, 0.9), (0.7, 0.6), (1, 0)), colour)
    body.poly((*left, (-0.1, 0.3), (0.1, 0)), brush.shaded(colour, 0.75))


def cable(painter, draws, reach, z):
    """A cable across the road, `reach` metres to each side: too thin to label."""
    high, sag, slant = draws.number(5, 7.5), draws.number(0.3, 1.0), draws.number(-3, 3)
    steps = [k / 8 for k in range(-8, 9)]
    top = [(reach * s, high - sag * (1 - s * s), z + slant * s) for s in steps]
    low = [(x, y - 0.07, z) for x, y, z in reversed(top)]
    painter.face(top + low, brush.BLACK, brush.VOID)


SKINS = ((225, 180, 150), (175, 125, 90), (120, 80, 55))

CIRCLE = [(math.cos(0.7 * k), math.sin(0.7 * k)) for k in range(9)]

COATS = ((222, 214, 200), (140, 95, 60), (62, 52, 48), (180, 150, 115), (42, 42, 44))

# Length, width, height in metres, and the side outline from the rear bumper over the roof to the
# front: (along -1..1, share of the height, what the surface up to the next point is).
# fmt: off
VEHICLES = {
    "sedan": (4.3, 1.8, 1.5, ((-1, .16, 0), (-1, .62, 0), (-.7, .66, "glass"), (-.42, 1, "roof"),
                              (.2, 1, "glass"), (.5, .65, 0), (1, .52, 0), (1, .16, 0))),
    "hatchback": (3.8, 1.75, 1.55, ((-1, .16, 0), (-1, .6, "glass"), (-.82, 1, "roof"),
                                    (.2, 1, "glass"), (.55, .63, 0), (1, .52, 0), (1, .16, 0))),
    "jeep": (4.5, 1.9, 1.85, ((-1, .18, 0), (-1, .58, "glass"), (-.94, 1, "roof"),
                              (.25, 1, "glass"), (.5, .62, 0), (1, .56, 0), (1, .18, 0))),
    "rickshaw": (2.7, 1.4, 1.8, ((-1, .16, 0), (-1, .55, "roof"), (-.85, 1, "roof"),
                                 (.35, 1, "glass"), (.7, .55, 0), (1, .4, 0), (1, .16, 0))),
    "van": (5.0, 2.0, 2.2, ((-1, .14, 0), (-1, .52, "glass"), (-.97, .88, 0), (-.95, 1, "roof"),
                            (.6, 1, "glass"), (.85, .55, 0), (1, .45, 0), (1, .14, 0))),
    "bus": (10.5, 2.5, 3.1, ((-1, .12, 0), (-1, .5, "glass"), (-1, .84, 0), (-.99, 1, "roof"),
                             (.99, 1, 0), (1, .9, "glass"), (1, .42, 0), (1, .12, 0))),
    "truck": (7.5, 2.4, 3.3, ((-1, .25, 0), (-1, 1, "roof"), (.5, 1, 0), (.5, .8, "roof"),
                              (.8, .8, "glass"), (.98, .5, 0), (1, .45, 0), (1, .14, 0))),
}
# fmt: on


def person(painter, draws, x, z, tall=1.7, seat=0.0):
    """Someone walking or standing, `tall` metres; with `seat`, its height: a rider."""
    body = brush.Upright(painter, x, z, brush.LIVING, draws.choice((-1.15, 1.15)), tall / 1.7)
    skin = draws.choice(SKINS)
    top, bottom = draws.colour((0.0, 0.85), (0.15, 0.95)), draws.colour((0.0, 0.6), (0.1, 0.8))
    shade, stride, swing = brush.shaded(top, 0.75), draws.number(0.02, 0.3), draws.number(-0.1, 0.3)
    lift = seat - 0.85 if seat else 0.0
    if seat:
        body.limb((-0.1, seat), (-0.18, 0.28), 0.2, brush.shaded(bottom, 0.8))
        body.limb((0.1, seat), (0.18, 0.28), 0.2, bottom)
    else:
        painter.cast(x, z, 0.24, tall)
        if draws.chance(0.25):  # a long dress or sari
            body.rect(-0.14, 0.15, 0, 0.1, skin)
            body.poly(((-0.16, 0.98), (0.16, 0.98), (0.27, 0.1), (-0.25, 0.1)), bottom)
        else:
            for foot, tone in ((-stride, 0.7), (stride, 1.0)):
                body.limb((foot * 0.25, 0.92), (foot, 0.06), 0.2, brush.shaded(bottom, tone))
                body.rect(foot - 0.09, foot + 0.14, 0, 0.08, brush.shaded(skin, 0.35))
    body.limb((-0.2, 1.38 + lift), (-0.22 - swing, 0.9 + lift), 0.14, shade)
    for left, right, tone in ((-0.24, 0.24, top), (0.08, 0.24, shade)):
        shoulder, waist = 1.42 + lift, 0.84 + lift
        corners = ((left, shoulder), (right, shoulder), (0.8 * right, waist), (0.8 * left, waist))
        body.poly(corners, tone)
    if draws.chance(0.3):
        body.rect(-0.38, -0.14, 0.7 + lift, 1.1 + lift, draws.colour())
    body.limb((0.2, 1.38 + lift), (0.24 + swing, 0.92 + lift), 0.14, top)
    body.disc(0.25 + swing, 0.9 + lift, 0.06, 0.07, skin)
    hair = draws.choice((brush.BLACK, (62, 42, 28), (150, 145, 140), brush.shaded(top, 0.5)))
    body.disc(0, 1.6 + lift, 0.14, 0.17, hair)
    if draws.chance(0.6):  # seen from the front
        body.disc(0.02, 1.57 + lift, 0.11, 0.13, skin)


def animal(painter, draws, x, z):
    """A cow, or a smaller beast of the same build: goat, dog."""
    size = draws.choice((1.05, 0.95, 0.75, 0.6))
    painter.cast(x, z, 0.85 * size, 1.2 * size)
    coat = draws.choice(COATS)
    dark, head = brush.shaded(coat, 0.72), draws.choice((1.5, 1.35, 0.8))
    body = brush.Upright(painter, x, z, brush.LIVING, draws.choice((-1, 1)), size)
    for at, tone in ((-0.62, dark), (0.5, dark), (-0.8, coat), (0.7, coat)):
        body.limb((at, 0.8), (at + draws.number(-0.12, 0.12), 0), 0.19, tone)
    back = ((-0.95, 0.78), (-0.9, 1.25), (0.2, 1.28), (0.62, 1.4), (0.92, 1.2), (0.85, 0.7))
    body.poly((*back, (0.1, 0.56)), coat)
    body.poly(((-0.95, 0.82), (0.85, 0.76), (0.1, 0.56)), dark)
    if draws.chance(0.5):
        body.disc(draws.number(-0.5, 0.4), 1.02, 0.26, 0.2, draws.choice(COATS))
    body.limb((-0.94, 1.2), (-1.05, 0.6), 0.08, dark)
    body.limb((0.7, 1.15), (1.12, head), 0.36, coat)
    body.poly(((1.0, head + 0.18), (1.1, head - 0.16), (1.5, head - 0.16), (1.46, head)), coat)
    body.disc(1.0, head + 0.14, 0.1, 0.07, dark)
    if size > 0.7:
        body.limb((1.06, head + 0.12), (1.12, head + 0.4), 0.08, (205, 195, 170))


def two_wheeler(painter, draws, x, z):
    """A motorcycle from the side or from an end, mostly with one or two riders."""
    paint, side_on = draws.colour((0.2, 0.9), (0.25, 0.9)), draws.chance(0.4)
    body = brush.Upright(painter, x, z, brush.VEHICLE, draws.choice((-1, 1)))
    painter.cast(x, z, 0.9 if side_on else 0.4, 1.1)
    if side_on:
        for wheel in (-0.65, 0.65):
            body.disc(wheel, 0.31, 0.33, 0.33, brush.BLACK)
            body.disc(wheel, 0.31, 0.15, 0.15, brush.STEEL)
        body.poly(((-0.95, 0.62), (-0.2, 0.8), (0.5, 0.84), (0.62, 0.4), (-0.5, 0.3)), paint)
        body.limb((-0.85, 0.78), (0.1, 0.8), 0.14, brush.BLACK)
        body.limb((0.65, 0.3), (0.4, 1.12), 0.12, brush.STEEL)
    else:
        body.rect(-0.11, 0.11, 0, 0.6, brush.BLACK)
        body.poly(((-0.24, 0.35), (-0.3, 0.88), (0.3, 0.88), (0.24, 0.35)), paint)
        body.rect(-0.42, 0.42, 0.95, 1.06, brush.BLACK)
    for seat in range(draws.choice((0, 1, 1, 1, 2))):
        person(painter, draws, x + (0.1 - 0.4 * seat) * side_on, z, seat=0.82)
    if not side_on:
        body.disc(0, 0.8, 0.13, 0.11, draws.choice((brush.WHITE, (200, 40, 30))), brush.GLOWING)


def _vehicle_end(panel, height, lamp):
    """Bumper, number plate, lamps and tyres on a vehicle's front or back."""
    low, high = (0.2 * height, 0.57 * height) if height < 2 else (0.5, 1.25)
    panel.rect(0.0, 1.0, low - 0.1, low + 0.12, brush.BLACK)
    panel.rect(0.36, 0.64, low + 0.14, low + 0.3, brush.WHITE)
    for u in (0.04, 0.78):
        panel.rect(u, u + 0.18, high - 0.24, high - 0.04, lamp, brush.GLOWING)
        panel.rect(u, u + 0.14, 0, low - 0.1, brush.BLACK)


def _vehicle_side(panel, side, kind, paint, roof):
    """Body, windows and wheels on a vehicle's left (-1) or right (1) side."""
    length, _, height, outline = VEHICLES[kind]

    def rect(a0, a1, low, high, colour):
        panel.rect((1 - side * a0) / 2, (1 - side * a1) / 2, low * height, high * height, colour)

    panel.poly([((1 - side * a) / 2, y * height) for a, y, _ in outline], paint)
    low, high = (0.66, 0.92) if height < 2 else (0.56, 0.84)
    windows = [(-0.6, -0.2), (-0.14, 0.3)]
    if kind == "bus":
        windows = [(-0.95 + 0.32 * i, -0.69 + 0.32 * i) for i in range(6)]
    elif kind == "truck":
        windows = [(0.6, 0.85)]
        for k in range(5):
            rect(-0.9 + 0.28 * k, -0.86 + 0.28 * k, 0.3, 0.97, brush.shaded(paint, 0.8))
    for a0, a1 in windows:
        rect(a0, a1, low, high, brush.GLASS)
    if kind == "rickshaw":
        rect(-0.97, 0.4, 0.86, 1.0, roof)
    radius = 0.34 if height < 2.5 else 0.5
    for wheel in (-0.62, 0.62):
        for size, colour in ((radius, brush.BLACK), (radius * 0.5, brush.STEEL)):
            middle, reach = (1 - side * wheel) / 2, size / length
            panel.poly([(middle + c * reach, radius + s * size) for c, s in CIRCLE], colour)


def vehicle(painter, draws, x, z, heading, kind):
    """A car, truck, bus or autorickshaw centred at (x, z); heading 0 drives away (radians)."""
    length, width, height, outline = VEHICLES[kind]
    hue = draws.choice(((0.0, 0.03), (0.55, 0.66), (0.0, 1.0)))
    vivid, plain = (
        draws.colour((0.55, 0.9), (0.3, 0.85), hue),
        brush.shaded(brush.WHITE, draws.number(0.15, 1)),
    )
    paint = draws.choice((vivid, plain))
    roof = draws.choice((brush.BLACK, (190, 150, 30))) if kind == "rickshaw" else paint
    cos, sin = math.cos(heading), math.sin(heading)

    def ground(along, across):
        a, b = along * length / 2, across * width / 2
        return x + b * cos + a * sin, z + a * cos - b * sin

    corners = [ground(a, b) for a, b in ((-1, -1), (-1, 1), (1, 1), (1, -1))]
    if painter.air.shadow:
        sx, sz = painter.air.cast[0] * height, painter.air.cast[1] * height
        tips = [(cx + sx, cz + sz) for cx, cz in corners]
        for k in range(4):
            painter.shadow((corners[k - 1], corners[k], tips[k], tips[k - 1]))
    painter.shadow([(x + 1.07 * (cx - x), z + 1.07 * (cz - z)) for cx, cz in corners], 190)
    for (a0, y0, what), (a1, y1, _) in itertools.pairwise(outline):
        rise, run = (y1 - y0) * height, (a1 - a0) * length / 2
        norm = math.hypot(rise, run)
        nx, ny, nz = -rise * sin / norm, run / norm, -rise * cos / norm
        px, pz = ground(a0, 0)
        if nx * painter.ahead(px, pz) + ny * (y0 * height - painter.camera.height) + nz * pz >= 0:
            continue  # it faces away
        layers = [(1.0, roof if what == "roof" else paint)]
        layers += [(0.84, brush.GLASS)] if what == "glass" else []
        for wide, colour in layers:
            quad = ((a0, y0, -wide), (a1, y1, -wide), (a1, y1, wide), (a0, y0, wide))
            points = [(*ground(a, b), y * height) for a, y, b in quad]
            colour = brush.shaded(colour, painter.light(nx, ny, nz))
            painter.face([(px, y, pz) for px, pz, y in points], colour, brush.VEHICLE)
    for end, lamp in ((-1, (205, 45, 35)), (1, (245, 240, 215))):
        panel = brush.Panel(painter, ground(end, -end), ground(end, end), brush.VEHICLE)
        if panel.seen:
            _vehicle_end(panel, height, lamp)
    for side in (-1, 1):
        panel = brush.Panel(painter, ground(side, side), ground(-side, side), brush.VEHICLE)
        if panel.seen:
            _vehicle_side(panel, side, kind, paint, roof)
