"""The brush of the `streets` scenes: camera, weather, and polygons in space that carry a class.

Lengths are metres, colours (r, g, b) in 0..255.
"""

import colorsys
import dataclasses
import math

import numpy as np
from PIL import ImageDraw

DRIVABLE, NON_DRIVABLE, LIVING, VEHICLE, ROADSIDE, FAR, SKY, VOID = range(8)

# Materials, kept per pixel beside the class: they choose texture and light, never the label.
PLAIN, ASPHALT, PAVING, SOIL, PAINT, FOLIAGE, MASONRY, GLOWING = range(8)

BLACK, GLASS, STEEL, WHITE = (30, 30, 33), (54, 64, 76), (125, 128, 132), (232, 230, 224)


def shaded(colour, factor):
    """The colour, lighter (factor > 1) or darker."""
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


class Draws:
    """Random numbers for one scene, in order, from blocks: scalar draws from numpy are slow."""

    def __init__(self, generator: np.random.Generator):
        self._generator, self._block = generator, iter(())

    def number(self, low=0.0, high=1.0):
        """A number in [low, high)."""
        for value in self._block:
            return low + (high - low) * value
        self._block = iter(self._generator.random(2048).tolist())
        return self.number(low, high)

    def whole(self, low, high):
        """An integer in low..high, both included."""
        return low + int(self.number() * (high - low + 1))

    def chance(self, probability):
        return self.number() < probability

    def choice(self, options):
        return options[int(self.number() * len(options))]

    def colour(self, saturation=(0.0, 0.7), value=(0.2, 0.95), hue=(0.0, 1.0)):
        """An (r, g, b) in 0..255 with hue, saturation and value in these ranges."""
        rgb = colorsys.hsv_to_rgb(*(self.number(*span) for span in (hue, saturation, value)))
        return tuple(255 * c for c in rgb)


@dataclasses.dataclass(frozen=True)
class Camera:
    """Focal length and image measures in picture heights; offset, height and road in metres."""

    focal: float
    horizon: float  # share of the height, from the top
    height: float
    shift: float  # of the vanishing point, to the right
    offset: float  # of the camera from the road's centre line, to the right
    curve: float  # the road's centre is at curve * z * z


@dataclasses.dataclass(frozen=True)
class Air:
    """Light and weather. Colours in 0..255; `gain` is exposure and tint, a factor per channel."""

    zenith: tuple
    skyline: tuple
    clouds: float
    gain: tuple
    sun: tuple  # unit vector towards the sun: right, up, ahead
    ambient: float
    shadow: float  # darkness of cast shadows, 0..255
    visibility: float  # metres until 63% of the light is fog
    dusk: float  # share of lit windows
    wet: bool

    @property
    def cast(self):
        """Where the shadow of something one metre high ends: metres right and ahead."""
        return -self.sun[0] / self.sun[1], -self.sun[2] / self.sun[1]


# Zenith and skyline colour, cloud strength, ambient light, darkness of cast shadows (0..255),
# visibility in metres and exposure (lowest, highest), share of lit windows. None: a drawn blue,
# or greys where there is no skyline colour either.
_WEATHER = {
    "clear": (None, (205, 220, 232), 0.8, 0.58, 190, (250, 900), (0.9, 1.12), 0.0),
    "hazy": ((165, 175, 185), (218, 210, 192), 0.8, 0.75, 110, (90, 200), (0.85, 1.1), 0.0),
    "overcast": (None, None, 0.5, 0.9, 0, (300, 500), (0.65, 1.05), 0.0),
    "rain": (None, None, 0.5, 0.93, 0, (90, 180), (0.6, 0.95), 0.0),
    "fog": (None, None, 0.3, 0.93, 0, (45, 90), (0.7, 1.0), 0.0),
    "dusk": ((60, 70, 120), (240, 165, 115), 0.8, 0.85, 60, (200, 700), (0.55, 0.75), 0.4),
    "twilight": ((40, 50, 85), (150, 120, 140), 0.8, 0.9, 0, (200, 700), (0.5, 0.7), 0.6),
}


def weather(draws) -> Air:
    kind = draws.choice((*_WEATHER, *("clear",) * 5, "hazy", "overcast"))
    zenith, skyline, clouds, ambient, shadow, visibility, exposure, dusk = _WEATHER[kind]
    if skyline is None:
        grey = draws.number(135, 215)
        zenith, skyline = (grey * 0.8, grey * 0.83, grey * 0.88), (grey, grey, grey * 1.01)
    zenith = zenith or draws.colour((0.4, 0.65), (0.65, 0.85), (0.56, 0.61))
    sun = draws.choice((-1, 1)) * draws.number(0.35, 0.9), draws.number(0.5, 1.1)
    sun = (*sun, draws.number(-0.7, 0.5))
    sun = tuple(part / math.hypot(*sun) for part in sun)
    warm, level = draws.number(-0.08, 0.12), draws.number(*exposure)
    gain = (level * (1 + warm), level, level * (1 - warm))
    visibility, wet = draws.number(*visibility), kind == "rain"
    return Air(zenith, skyline, clouds, gain, sun, ambient, shadow, visibility, dusk, wet)


class Painter:
    """Puts polygons in space on an RGBX canvas whose fourth band holds class + 8 * material.

    The canvas may be larger than the picture (supersampling); `shadows` has the picture's size
    and takes the darkness, 0..255, that objects cast on the ground.
    """

    def __init__(self, canvas, shadows, camera: Camera, air: Air):
        self.camera, self.air = camera, air
        self._veil = (0.0,)
        width, height = canvas.size
        self.width = width
        # Beyond these shapes the picture is stretched, or there would be no street beside it.
        view = min(2.4, max(1.2, width / height))
        self.scale_y, self.scale_x = camera.focal * height, camera.focal * width / view
        self.center, self.horizon = width * (0.5 + camera.shift / view), camera.horizon * height
        self._draw, self._shade = ImageDraw.Draw(canvas), ImageDraw.Draw(shadows)
        self._shadow_scale = shadows.size[0] / width

    def ahead(self, x, z):
        """Metres to the right of the camera's axis, for x metres right of the road's centre."""
        return x - self.camera.offset + self.camera.curve * z * z

    def pixel(self, x, y, z):
        """Column and row on the canvas of a point in space."""
        right = self.scale_x * self.ahead(x, z) / z
        return self.center + right, self.horizon + self.scale_y * (self.camera.height - y) / z

    def _ink(self, colour, z, label, material):
        if z != self._veil[0]:  # many strokes in a row share a depth
            clear = math.exp(-z / self.air.visibility)
            keep = [clear * gain for gain in self.air.gain]
            self._veil = (z, clear, *keep, *((1.0 - clear) * c for c in self.air.skyline))
        _, clear, kr, kg, kb, red, green, blue = self._veil
        if material == GLOWING:
            kr = kg = kb = clear
        red, green, blue = red + kr * colour[0], green + kg * colour[1], blue + kb * colour[2]
        code = label + 8 * material
        return (min(int(red), 255), min(int(green), 255), min(int(blue), 255), code)

    def polygon(self, flat, colour, z, label, material=PLAIN):
        """A polygon on the canvas, [x0, y0, x1, ...] in pixels, seen through z metres of air."""
        self._draw.polygon(flat, fill=self._ink(colour, z, label, material))

    def ellipse(self, box, colour, z, label, material=PLAIN):
        self._draw.ellipse(box, fill=self._ink(colour, z, label, material))

    def face(self, points, colour, label, material=PLAIN, depth=None):
        """A polygon in space, from points (x, y, z); fog as at `depth`, or at the nearest point."""
        flat, camera = [], self.camera
        for x, y, z in points:  # `pixel`, written out: this is the hot loop
            flat.append(self.center + self.scale_x * ((x - camera.offset) / z + camera.curve * z))
            flat.append(self.horizon + self.scale_y * (camera.height - y) / z)
        columns = flat[::2]
        if max(columns) > 0 and min(columns) < self.width:
            depth = depth or min([p[2] for p in points])
            self.polygon(flat, colour, depth, label, material)

    def light(self, nx, ny, nz):
        """Brightness of a surface with this unit normal."""
        sun = self.air.sun
        facing = nx * sun[0] + ny * sun[1] + nz * sun[2]
        return self.air.ambient + (1.15 - self.air.ambient) * max(0.0, facing)

    def shadow(self, points, darkness=None):
        """Darkens the ground inside points (x, z)."""
        flat = []
        for x, z in points:
            flat += (c * self._shadow_scale for c in self.pixel(x, 0.0, max(z, 1.2)))
        self._shade.polygon(flat, fill=int(self.air.shadow if darkness is None else darkness))

    def cast(self, x, z, half_width, height):
        """The shadow of something upright, and the dark patch where it touches the ground."""
        sx, sz = self.air.cast[0] * height, self.air.cast[1] * height
        if self.air.shadow:
            w = half_width
            self.shadow(((x - w, z), (x + w, z), (x + w + sx, z + sz), (x - w + sx, z + sz)))
        w, d = min(1.0, half_width * 1.15), min(0.5, half_width * 0.6)
        self.shadow(((x - w, z), (x, z - d), (x + w, z), (x, z + d)), 130)


class Upright:
    """A plane across the view at one depth; points are (right, up) metres from its foot."""

    def __init__(self, painter, x, z, label, mirror=1, size=1.0):
        self.painter, self.z, self.label = painter, z, label
        self.column, self.row = painter.pixel(x, 0.0, z)
        self.sx, self.sy = mirror * size * painter.scale_x / z, size * painter.scale_y / z

    def poly(self, points, colour, material=PLAIN):
        flat = []
        for right, up in points:
            flat += (self.column + self.sx * right, self.row - self.sy * up)
        self.painter.polygon(flat, colour, self.z, self.label, material)

    def rect(self, left, right, low, high, colour, material=PLAIN):
        self.poly(((left, low), (left, high), (right, high), (right, low)), colour, material)

    def limb(self, start, end, thick, colour):
        """A bar from start to end, `thick` metres across."""
        (ax, ay), (bx, by) = start, end
        norm = thick / 2 / (math.hypot(bx - ax, by - ay) or 1.0)
        nx, ny = (ay - by) * norm, (bx - ax) * norm
        corners = ((ax + nx, ay + ny), (bx + nx, by + ny), (bx - nx, by - ny), (ax - nx, ay - ny))
        self.poly(corners, colour)

    def disc(self, right, up, rx, ry, colour, material=PLAIN):
        x, y = self.column + self.sx * right, self.row - self.sy * up
        w, h = abs(self.sx) * rx, self.sy * ry
        box = (x - w, y - h, x + w, y + h)
        self.painter.ellipse(box, colour, self.z, self.label, material)


class Panel:
    """An upright plane between two ground points (x, z); points are (share along, metres up).

    Its front is on the left of the way from start to end. `seen` says whether the camera sees
    it, `bright` is its share of the sun's light.
    """

    def __init__(self, painter, start, end, label, material=PLAIN):
        self.painter, self.label, self.material = painter, label, material
        self.start, self.end = start, end
        dx, dz = end[0] - start[0], end[1] - start[1]
        length = math.hypot(dx, dz) or 1.0
        nx, nz = -dz / length, dx / length
        self.seen = nx * painter.ahead(*start) + nz * start[1] < 0
        self.bright, self.depth = painter.light(nx, 0.0, nz), (start[1] + end[1]) / 2

    def poly(self, points, colour, material=None):
        (x0, z0), (x1, z1) = self.start, self.end
        space = [(x0 + (x1 - x0) * u, y, z0 + (z1 - z0) * u) for u, y in points]
        material = self.material if material is None else material
        colour = shaded(colour, self.bright)
        self.painter.face(space, colour, self.label, material, self.depth)

    def rect(self, u0, u1, low, high, colour, material=None):
        self.poly(((u0, low), (u0, high), (u1, high), (u1, low)), colour, material)
