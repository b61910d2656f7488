"""One sample from seed to pixels: build the part, spoil it if asked, photograph it, and see which pixels show
the defect."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, correlate1d

from idif.datasets.synthetic.camera_rig import RIG, Pose, place
from idif.datasets.synthetic.catalog import BUILDERS
from idif.datasets.synthetic.defects import CONSTRUCTION, SURFACE, DefectSite, find_spot
from idif.datasets.synthetic.distance_volume import Volume
from idif.datasets.synthetic.part_model import TABLE, Fault, Part
from idif.datasets.synthetic.ray_tracer import Raster
from idif.datasets.synthetic.sample_specs import SEVERITIES, SampleSpec
from idif.datasets.synthetic.scene import Pixels, RayHits, look
from idif.datasets.synthetic.sdf import Points, length
from idif.datasets.synthetic.shading import Light, Scene
from idif.datasets.synthetic.visibility import visible_shares

_DEPTH_STEP = 0.006
"""Surfaces this far apart along a ray (in part radii) are different ones."""
_CONTRAST = 0.035
"""Difference of a colour channel, of 0..1 after gamma and without noise, that a person can see: 9 of 255."""
_ATTEMPTS = 24
_IN_LEVEL = 12
"""Attempts at a visible placement before the defect grows beyond its level: at 32 or 64 pixels the faintest
defects cannot be seen anywhere on some parts."""


@dataclass(frozen=True)
class Photographs:
    """The views of one sample, V cameras of size S."""

    images: NDArray[np.uint8]
    """[V, S, S, 3]."""
    masks: NDArray[np.bool_]
    """[V, S, S], true where a defect is seen; all false in a view that is OK."""
    classes: tuple[str, ...]
    """Per view ``OK`` or the code of the defect that covers most of its mask."""
    visible: tuple[float, ...]
    """Per view the share 0..1 of the defects' surface that the camera sees, also where the view is OK because
    too little of that differs enough to be noticed. Above 0 in every view that is not OK."""
    contrast: tuple[float, ...]
    """Per view the mean difference, over the mask, to the unspoilt twin: largest colour channel, 0..1, after
    gamma and without noise. 0 where the view is OK."""
    severities: tuple[float, ...]
    """Of each of the order's defects, 0..1. Above the level's range where nothing within it could be seen."""


class SampleRenderer:
    """Makes the photographs of a dataset of one image size; use it as a context manager, from one thread.

    Raises `CannotFinish` on entering where VTK has no off-screen OpenGL.
    """

    def __init__(self, size: int) -> None:
        self._raster = Raster(len(RIG), size)

    def __enter__(self) -> "SampleRenderer":
        self._raster.__enter__()
        return self

    def __exit__(self, *args: object) -> None:
        self._raster.__exit__(*args)

    def photograph(self, order: SampleSpec) -> Photographs:
        """The photographs of one sample. A spoilt one shows its defect in at least one view."""
        clean = self._scene(order, BUILDERS[order.category](order.rng(0), None))
        sight = look(clean, self._raster, RIG)
        everything = np.arange(len(sight.depth), dtype=np.int32)
        if not order.kinds:
            picture = sight.pictures(everything)
            shape = (len(RIG), self._raster.size, self._raster.size)
            nothing = (0.0,) * len(RIG)
            return Photographs(
                self._exposed(order, picture),
                np.zeros(shape, bool),
                ("OK",) * len(RIG),
                nothing,
                nothing,
                (),
            )
        for attempt in range(_ATTEMPTS):
            spoilt = _apply_defect(order, clean, attempt)
            if spoilt is None:
                continue
            after = look(self._scene(order, spoilt.part), self._raster, RIG)
            change = _visible(sight, after)
            near = None if spoilt.spot is None or len(order.kinds) > 1 else spoilt.spot.centre
            shares = visible_shares(sight, after, near, order.rng(4))
            # A few pixels at a silhouette, of a surface that is seen nowhere, are no ground for a label.
            classes = tuple(
                name if share > 0 else "OK"
                for name, share in zip(_classes(order, after, change, spoilt.spot), shares, strict=True)
            )
            shown = np.array([name != "OK" for name in classes])
            if not shown.any():
                continue
            masks = change.masks & shown[:, None, None]
            contrast = tuple(
                round(float(values[mask].mean()), 4) if mask.any() else 0.0
                for values, mask in zip(change.contrast, masks, strict=True)
            )
            image = self._exposed(order, after.pictures(everything))
            return Photographs(image, masks, classes, shares, contrast, spoilt.severities)
        raise AssertionError(f"no visible placement in {_ATTEMPTS} attempts: {order}")

    def _scene(self, order: SampleSpec, part: Part) -> Scene:
        rng = order.rng(1)
        pose = Pose(
            float(rng.uniform(-7, 7)), (float(rng.uniform(-0.03, 0.03)), float(rng.uniform(-0.03, 0.03)))
        )
        light = Light(
            key_azimuth=55.0 + float(rng.uniform(-5, 5)),
            key_elevation=52.0 + float(rng.uniform(-3, 3)),
            key=1.25 * float(rng.uniform(0.94, 1.06)),
            fill=0.80 * float(rng.uniform(0.95, 1.05)),
        )
        return Scene(part, Volume(part), pose, light, rng.uniform(0, 32, (3, 1)).astype(np.float32))

    def _exposed(self, order: SampleSpec, picture: Points) -> NDArray[np.uint8]:
        """Noise-free pixels [3, N] as a sensor gives them: a little soft, darker in the corners, noisy."""
        size = self._raster.size
        image = picture.reshape(3, len(RIG), size, size).transpose(1, 2, 3, 0)
        for axis in (1, 2):
            image = correlate1d(image, np.array([0.13, 0.74, 0.13], np.float32), axis=axis, mode="nearest")
        line = np.linspace(-1, 1, size, dtype=np.float32)
        image *= (1.0 - 0.035 * (line[:, None] ** 2 + line**2))[:, :, None]
        grain = order.rng(2).standard_normal(image.shape, np.float32)
        image += grain * (0.004 + 0.006 * np.sqrt(np.maximum(image, 0.0)))
        return (np.clip(image, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


@dataclass(frozen=True)
class _Spoilt:
    part: Part
    spot: DefectSite | None
    """Where the defect of the surface is, if there is one."""
    severities: tuple[float, ...]
    """Of each defect."""


def _apply_defect(order: SampleSpec, clean: Scene, attempt: int) -> _Spoilt | None:
    """The part with its defects; None if no place was found for the one of the surface."""
    rng = order.rng(3, attempt)
    part, spot, severities = clean.part, None, []
    low, high = SEVERITIES[order.level]
    for kind in order.kinds:
        # Each failed attempt makes the next one easier to see.
        severity = low + (high - low) * min(1.0, float(rng.uniform(0.0, 1.0)) + 0.08 * attempt)
        severity = min(1.0, severity + 0.08 * max(0, attempt - _IN_LEVEL + 1))
        severities.append(round(severity, 4))
        if kind in CONSTRUCTION:
            part = BUILDERS[order.category](order.rng(0), Fault(kind, severity, rng))
            continue
        camera = int(rng.choice(len(RIG), p=(0.12, 0.22, 0.22, 0.22, 0.22)))
        eyes = [place(each, clean.pose, part.radius, part.height).position for each in RIG]
        spot = find_spot(part, np.concatenate(eyes, axis=1), camera, rng)
        if spot is None:
            return None
        part = SURFACE[kind](part, spot, severity, rng)
    return _Spoilt(part, spot, tuple(severities))


def _kinds_of_surface(sight: RayHits, known: dict[object, int]) -> NDArray[np.int16]:
    """Per pixel [N] a number for what is seen there: a component in a material, or the mat."""
    table = known.setdefault("table", len(known))
    numbers = [known.setdefault((c.name, c.material), len(known)) for c in sight.scene.part.components]
    return np.array([*numbers, table], np.int16)[
        np.where(sight.component == TABLE, len(numbers), sight.component)
    ]


@dataclass(frozen=True)
class _Change:
    """What a defect changed in the views, [V, S, S] each."""

    masks: NDArray[np.bool_]
    """What a person can see of it."""
    contrast: NDArray[np.float32]
    """Difference of the pictures without noise, largest colour channel, 0..1; 0 outside the region."""


def _visible(before: RayHits, after: RayHits) -> _Change:
    """What the defect changed and a person can see.

    A pixel belongs to the defect where another surface, or the same one elsewhere, meets the eye, or where a
    mark of the defect lies. Shadows that it throws elsewhere do not count. Of this region only what lies
    beside visible contrast is kept: a shallow dent's rim that nobody can see is no ground truth.
    """
    size = before.eyes.size
    known: dict[object, int] = {}
    region = _kinds_of_surface(before, known) != _kinds_of_surface(after, known)
    region |= np.abs(before.depth - after.depth) > _DEPTH_STEP
    region |= after.mark > 0
    pixels: Pixels = np.flatnonzero(region).astype(np.int32)
    contrast = np.zeros((len(before.eyes.position[0]), size, size), np.float32)
    contrast.ravel()[pixels] = np.abs(before.pictures(pixels) - after.pictures(pixels)).max(0)
    reach = max(1, round(size / 64))
    beside = binary_dilation(contrast > _CONTRAST, np.ones((1, 3, 3), bool), iterations=reach)
    return _Change(region.reshape(contrast.shape) & beside, contrast)


def _classes(order: SampleSpec, after: RayHits, change: _Change, spot: DefectSite | None) -> tuple[str, ...]:
    """Per view the code of the defect with most pixels in its mask, ``OK`` where too little is seen."""
    least = max(6, round(0.0005 * after.eyes.size**2))
    surface = order.kinds[-1]
    result = []
    for view, (mask, contrast) in enumerate(zip(change.masks, change.contrast, strict=True)):
        if (contrast > _CONTRAST).sum() < least:
            result.append("OK")
        elif len(order.kinds) == 1 or spot is None:
            result.append(order.kinds[0])
        else:
            pixels: Pixels = (np.flatnonzero(mask) + view * mask.size).astype(np.int32)
            near = length(after.points(pixels) - spot.centre) < 0.45
            result.append(surface if near.mean() > 0.5 else order.kinds[0])
    return tuple(result)
