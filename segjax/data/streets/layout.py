"""Where things are in a `streets` scene: the sky, the ground, and what stands on it."""

import math

import numpy as np
from PIL import Image

from segjax.data.streets import brush, objects


def backdrop(canvas, painter, draws, generator):
    """Sky with clouds, and the far end of the street."""
    air, width = painter.air, canvas.size[0]
    zenith, skyline = np.asarray(air.zenith, np.float32), np.asarray(air.skyline, np.float32)
    down = np.linspace(0, 1, 40, dtype=np.float32)[:, None, None] ** 0.8
    sky = zenith + (skyline - zenith) * down
    puffs = generator.random((5, 8), np.float32), generator.random((12, 16), np.float32)
    broad, fine = (np.asarray(Image.fromarray(p).resize((64, 40), Image.BICUBIC)) for p in puffs)
    cover = np.clip((0.65 * broad + 0.35 * fine - draws.number(0.4, 0.75)) * 4, 0, 1)
    sky = sky + (np.minimum(255, 1.08 * skyline + 10) - sky) * (air.clouds * cover[..., None])
    code = np.full((40, 64, 1), brush.SKY + 8 * brush.GLOWING)
    picture = Image.fromarray(np.concatenate((sky, code), 2).astype(np.uint8), "RGBX")
    canvas.paste(picture.resize((width, int(painter.horizon) + 2), Image.BILINEAR))
    tone, far = draws.colour((0.05, 0.35), (0.3, 0.6), (0.1, 0.6)), 170.0
    left = -220.0 - painter.ahead(0, far)
    for _ in range(20):
        right, high, green = left + draws.number(10, 35), draws.number(6, 26), draws.chance(0.45)
        colour = (75, 100, 60) if green else brush.shaded(tone, draws.number(0.7, 1.3))
        roof = high * (1.3 if green else 1.0)
        outline = ((left, -2), (left, high), ((left + right) / 2, roof), (right, high), (right, -2))
        painter.face([(x, y, far) for x, y in outline], colour, brush.FAR)
        left = right


def ground(painter, draws, half, walks):
    """Soil, road, kerbs, pavements (`walks` metres wide, left and right) and markings."""
    depths = (1.25, 1.6, 2, 2.5, 3.2, 4, 5, 6.5, 8.5, 11, 14, 18, 24, 32, 45, 65, 100, 180)
    near, far = depths[0], depths[-1]

    def band(x0, x1, colour, label=brush.DRIVABLE, material=brush.PAINT, z0=near, z1=far):
        way = [z0, *(z for z in depths if z0 < z < z1), z1]  # bends with the road
        edges = [(x0, 0.0, z) for z in way] + [(x1, 0.0, z) for z in reversed(way)]
        # Fog and texture follow per pixel in `_finish_ground`.
        painter.face(edges, colour, label, material, depth=near)

    dry, grass = draws.colour((0.2, 0.45), (0.35, 0.65), (0.07, 0.12)), (96, 118, 66)
    band(-500, 500, draws.choice((dry, grass)), brush.NON_DRIVABLE, brush.SOIL)
    grey, tint = draws.number(70, 128), draws.number(-0.03, 0.07)
    asphalt = (grey * (1 + tint), grey, grey * (1 - tint))
    band(-half, half, asphalt, brush.DRIVABLE, brush.ASPHALT)
    for _ in range(draws.whole(0, 4)):  # repairs
        x, z = draws.number(-half, half - 2.5), draws.number(3, 25)
        patch, wide = (
            brush.shaded(asphalt, draws.choice((0.75, 0.85, 1.15))),
            draws.number(0.6, 2.5),
        )
        band(x, x + wide, patch, brush.DRIVABLE, brush.ASPHALT, z, z + draws.number(0.7, 5))
    white = brush.shaded(brush.WHITE, draws.number(0.75, 1.0))
    if draws.chance(0.8):
        middle = draws.choice((white, (225, 175, 60)))
        dash, gap = draws.choice(((3, 4), (1.5, 2), (400, 0)))
        z = draws.number(1.3, 4)
        while z < 60:
            band(-0.09, 0.09, middle, z0=z, z1=min(far, z + dash))
            z += dash + gap
    if draws.chance(0.6):
        for x in (0.3 - half, half - 0.3):
            band(x - 0.07, x + 0.07, white, z1=90)
    if draws.chance(0.3):  # a zebra crossing
        z = draws.number(5, 12)
        for k in range(int(2 * half - 0.6)):
            band(k + 0.3 - half, k + 0.8 - half, white, z0=z, z1=z + 3)
    slabs = draws.colour((0.0, 0.15), (0.45, 0.8))
    bricks = draws.colour((0.2, 0.45), (0.4, 0.7), (0, 0.1))
    paved, kerb, dark = draws.choice((slabs, bricks)), (175, 172, 165), (50, 50, 52)
    stripes = draws.choice((None, None, ((235, 230, 220), dark), ((225, 180, 60), dark)))
    for side, walk in zip((-1, 1), walks, strict=True):
        road, inner = side * half, side * (half + 0.35)
        band(inner, side * (half + walk), paved, brush.NON_DRIVABLE, brush.PAVING)
        band(road, inner, kerb, brush.NON_DRIVABLE, brush.PAVING)
        band(road - 0.12 * side, road, brush.shaded(asphalt, 0.6), brush.DRIVABLE, brush.ASPHALT)
        for k in range(16 if stripes else 0):
            z = 2.5 + 1.5 * k
            band(road, inner, stripes[k % 2], brush.NON_DRIVABLE, brush.PAVING, z, z + 1.5)


def _roadside(add, painter, draws, half, walk, side):
    """Chooses what stands on one side of the road, beyond its kerb."""
    edge, walled = half + walk, draws.chance(0.65)
    back = edge + (draws.number(2.0, 5.0) if walled else draws.number(0.0, 0.6))
    z, built = draws.number(2.5, 7), draws.number(0.35, 0.85)
    while z < 130:
        end = z + draws.number(7, 16)
        if draws.chance(built):
            floors = draws.choice((1, 2, 2, 3, 3, 4, 5))
            add(objects.building, side * back, z, end, floors, depth=end)
        else:
            add(objects.tree, side * (back + draws.number(1, 4)), z + 4, draws.number(5, 11))
        z = end + draws.choice((0, 0, 0, 3, 6))
    if walled:
        kind = draws.choice(("wall", "wall", "wall", "railing", "sheets", "sheets", "hedge"))
        high, colour = draws.number(1.5, 2.6), draws.colour((0.0, 0.6), (0.35, 0.9))
        z, stop = draws.number(1.4, 5), draws.number(25, 80)
        while z < stop:
            add(objects.wall, side * edge, z, z + 3, kind, high, colour, depth=z + 3)
            z += draws.choice((3,) * 12 + (6,))
    if draws.chance(0.3):
        concrete = ((205, 200, 190),) * 2
        colours = draws.choice(
            (concrete, ((220, 70, 40), brush.WHITE), ((225, 180, 50), (45, 45, 45)))
        )
        z = draws.number(4, 9)
        for _ in range(draws.whole(2, 5)):
            add(objects.barrier, side * (half + 0.1), z, z + 2, colours, depth=z + 2)
            z += draws.choice((2.0, 2.0, 3.5))
    z, step = draws.number(7, 16), draws.number(18, 30)
    while z < 26:
        add(objects.pole, side * (half + 0.6), z, "lamp")
        z += step
    focal = painter.camera.focal
    for _ in range(draws.whole(1, 2)):  # far enough ahead to be in the picture
        kind = draws.choice(("sign", "sign", "signal", "billboard", "billboard", "kiosk"))
        x = half + (0.7 if kind in ("sign", "signal") else walk - 0.8)
        z = max(focal * x / 0.8, 5) + draws.number(0, 4)
        add(objects.pole, side * x, z, kind)
    for _ in range(draws.whole(0, 2)):
        add(objects.tree, side * (half + walk * 0.8), draws.number(9, 45), draws.number(4, 8))
    for _ in range(draws.whole(1, 2)):  # people, alone or in small groups
        x = side * draws.number(half + 0.4, half + 1.4)
        z = max(focal * abs(painter.ahead(x, 0)) / 0.85, 3.0) + draws.number(0, 2)
        for k in range(draws.choice((1, 2, 2, 3))):
            add(objects.person, x + 0.5 * k * side, z + 0.3 * k, draws.number(1.5, 1.9))


def populate(painter, draws, half, walks, drive):
    """Places everything that stands on the ground, and draws it from far to near."""
    todo = []

    def add(draw, x, z, *rest, depth=None):
        todo.append((depth or z, draw, (x, z, *rest)))

    for side, walk in zip((-1, 1), walks, strict=True):
        _roadside(add, painter, draws, half, walk, side)
    for _ in range(draws.choice((0, 1, 1, 2))):
        tall = draws.choice((1.2, 1.6, 1.8))
        add(objects.person, draws.number(-half, half), draws.number(4.0, 8), tall)
    for _ in range(draws.choice((0, 1, 1, 2))):
        add(objects.animal, draws.number(-half - 1.5, half + 1.5), draws.number(4.5, 9))
    for _ in range(draws.choice((0, 1, 1, 2))):
        add(objects.two_wheeler, draws.number(-half, half), draws.number(5.0, 10))
    kinds = (*objects.VEHICLES, "hatchback", "rickshaw")
    own, parked = drive * half * 0.45, half - 0.9
    moving, standing = ((own, 0, 0.65, 8), (-own, math.pi, 0.7, 6)), ((1, 0), (-1, math.pi))
    lanes = (*moving, *((k * parked, heading, 0.4, 5) for k, heading in standing))
    for x, heading, busy, z in lanes:  # busy: the chance of one more vehicle
        z += draws.number(0, 9)
        while z < 90 and draws.chance(busy):
            kind = draws.choice(kinds)
            length, turn = objects.VEHICLES[kind][0], heading + draws.number(-0.06, 0.06)
            add(objects.vehicle, x + draws.number(-0.3, 0.3), z + length / 2, turn, kind)
            z += length + draws.number(3, 16)
    if draws.chance(0.2):  # someone turns across the road
        x, z, turn = draws.number(-2, 2), draws.number(9, 18), draws.number(0.9, 2.2)
        add(objects.vehicle, x, z, turn, draws.choice(("sedan", "jeep", "rickshaw", "van")))
    if draws.chance(0.35):
        add(objects.heap, draws.choice((-1, 1)) * (half + 1.2), draws.number(6, 11))
    for _, draw, args in sorted(todo, key=lambda entry: -entry[0]):
        draw(painter, draws, *args)
    for _ in range(draws.choice((0, 0, 0, 1, 2))):
        objects.cable(painter, draws, half + 5, draws.number(6, 22))
