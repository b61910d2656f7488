"""Renders one sample: builds the part, applies defects, renders the views and determines the defect masks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, correlate1d

from idif.datasets.synthetic.camera_rig import RIG, TablePose, place_camera
from idif.datasets.synthetic.catalog import BUILDERS
from idif.datasets.synthetic.defects import CONSTRUCTION, SURFACE, DefectSite, find_defect_site
from idif.datasets.synthetic.distance_volume import DistanceVolume
from idif.datasets.synthetic.part_model import TABLE, Fault, Part
from idif.datasets.synthetic.ray_tracer import DepthRenderer
from idif.datasets.synthetic.sample_specs import SEVERITIES, SampleSpec
from idif.datasets.synthetic.scene import Pixels, RayHits, trace_views
from idif.datasets.synthetic.sdf import Points, length
from idif.datasets.synthetic.shading import Light, Scene
from idif.datasets.synthetic.visibility import visible_shares

_DEPTH_STEP = 0.006
"""Surfaces this far apart along a ray (in part radii) are different ones."""
_CONTRAST = 0.035
"""Smallest visible difference of a color channel, 0..1 after gamma and without noise: 9 of 255."""
_ATTEMPTS = 24
"""Attempts at a defect that at least one camera sees."""
_IN_LEVEL = 12
"""Attempts before the defect grows beyond its level: at 32 or 64 pixels the faintest defects cannot be seen
anywhere on some parts."""


@dataclass(frozen=True)
class RenderedSample:
    """The views of one sample, V cameras of size S."""

    images: NDArray[np.uint8]
    """[V, S, S, 3]."""
    masks: NDArray[np.bool_]
    """[V, S, S], true where a defect is visible; all false in a view that is OK."""
    classes: tuple[str, ...]
    """Per view ``OK`` or the code of the defect that covers most of its mask."""
    visible: tuple[float, ...]
    """Per view the share 0..1 of the defects' surface that the camera sees. Above 0 in every view that is not
    OK, and in an OK view whose visible difference is too small."""
    contrast: tuple[float, ...]
    """Per view the mean difference, over the mask, to the clean part: largest color channel, 0..1, after
    gamma and without noise. 0 where the view is OK."""
    severities: tuple[float, ...]
    """Severity of each defect, 0..1. Above the level's range where no defect within it was visible."""


class SampleRenderer:
    """Renders samples at one image size; a context manager for one thread.

    Raises:
        ConfigError: on entering, where the extra ``synthetic`` is not installed.
        CannotFinish: on entering, where VTK has no off-screen OpenGL.
    """

    def __init__(self, size: int) -> None:
        self._depth_renderer = DepthRenderer(len(RIG), size)

    def __enter__(self) -> "SampleRenderer":
        self._depth_renderer.__enter__()
        return self

    def __exit__(self, *args: object) -> None:
        self._depth_renderer.__exit__(*args)

    def render(self, spec: SampleSpec) -> RenderedSample:
        """Render the views of one sample. A defective one shows its defect in at least one view."""
        clean = self._scene(spec, BUILDERS[spec.category](spec.rng(0), None))
        before = trace_views(clean, self._depth_renderer, RIG)
        all_pixels = np.arange(len(before.depth), dtype=np.int32)
        if not spec.kinds:
            images = self._expose(spec, before.colors_at(all_pixels))
            zeros = (0.0,) * len(RIG)
            return RenderedSample(
                images, np.zeros(images.shape[:3], bool), ("OK",) * len(RIG), zeros, zeros, severities=()
            )
        for attempt in range(_ATTEMPTS):
            defective = _apply_defect(spec, clean, attempt)
            if defective is None:
                continue
            after = trace_views(self._scene(spec, defective.part), self._depth_renderer, RIG)
            change = _visible_change(before, after)
            near = None if defective.site is None or len(spec.kinds) > 1 else defective.site.center
            shares = visible_shares(before, after, near, spec.rng(4))
            # A few changed pixels at a silhouette do not make a view anomalous that sees none of the defect.
            classes = tuple(
                name if share > 0 else "OK"
                for name, share in zip(_classes(spec, after, change, defective.site), shares, strict=True)
            )
            shown = np.array([name != "OK" for name in classes])
            if not shown.any():
                continue
            masks = change.masks & shown[:, None, None]
            contrast = tuple(
                round(float(values[mask].mean()), 4) if mask.any() else 0.0
                for values, mask in zip(change.contrast, masks, strict=True)
            )
            images = self._expose(spec, after.colors_at(all_pixels))
            return RenderedSample(images, masks, classes, shares, contrast, defective.severities)
        raise AssertionError(f"no visible placement in {_ATTEMPTS} attempts: {spec}")

    def _scene(self, spec: SampleSpec, part: Part) -> Scene:
        rng = spec.rng(1)
        pose = TablePose(
            float(rng.uniform(-7, 7)), (float(rng.uniform(-0.03, 0.03)), float(rng.uniform(-0.03, 0.03)))
        )
        light = Light(
            key_azimuth=55.0 + float(rng.uniform(-5, 5)),
            key_elevation=52.0 + float(rng.uniform(-3, 3)),
            key=1.25 * float(rng.uniform(0.94, 1.06)),
            fill=0.80 * float(rng.uniform(0.95, 1.05)),
        )
        return Scene(part, DistanceVolume(part), pose, light, rng.uniform(0, 32, (3, 1)).astype(np.float32))

    def _expose(self, spec: SampleSpec, colors: Points) -> NDArray[np.uint8]:
        """Sensor images [V, S, S, 3] from noise-free colors [3, N]: slightly blurred, vignetted, noisy."""
        size = self._depth_renderer.size
        image = colors.reshape(3, len(RIG), size, size).transpose(1, 2, 3, 0)
        for axis in (1, 2):
            image = correlate1d(image, np.array([0.13, 0.74, 0.13], np.float32), axis=axis, mode="nearest")
        line = np.linspace(-1, 1, size, dtype=np.float32)
        image *= (1.0 - 0.035 * (line[:, None] ** 2 + line**2))[:, :, None]
        grain = spec.rng(2).standard_normal(image.shape, np.float32)
        image += grain * (0.004 + 0.006 * np.sqrt(np.maximum(image, 0.0)))
        return (np.clip(image, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


@dataclass(frozen=True)
class _DefectivePart:
    part: Part
    site: DefectSite | None
    """Site of the surface defect, if there is one."""
    severities: tuple[float, ...]
    """One per defect."""


def _apply_defect(spec: SampleSpec, clean: Scene, attempt: int) -> _DefectivePart | None:
    """The part with its defects; None where no site was found for the surface defect."""
    rng = spec.rng(3, attempt)
    part, site, severities = clean.part, None, []
    low, high = SEVERITIES[spec.level]
    for kind in spec.kinds:
        # Each failed attempt makes the next one easier to see.
        severity = low + (high - low) * min(1.0, float(rng.uniform(0.0, 1.0)) + 0.08 * attempt)
        severity = min(1.0, severity + 0.08 * max(0, attempt - _IN_LEVEL + 1))
        severities.append(round(severity, 4))
        if kind in CONSTRUCTION:
            part = BUILDERS[spec.category](spec.rng(0), Fault(kind, severity, rng))
            continue
        camera = int(rng.choice(len(RIG), p=(0.12, 0.22, 0.22, 0.22, 0.22)))
        positions = [place_camera(each, clean.pose, part.radius, part.height).position for each in RIG]
        site = find_defect_site(part, np.concatenate(positions, axis=1), camera, rng)
        if site is None:
            return None
        part = SURFACE[kind](part, site, severity, rng)
    return _DefectivePart(part, site, tuple(severities))


def _surface_ids(hits: RayHits, ids: dict[object, int]) -> NDArray[np.int16]:
    """Per pixel [N] a number for the visible surface: a component in a material, or the mat."""
    table = ids.setdefault("table", len(ids))
    numbers = [ids.setdefault((c.name, c.material), len(ids)) for c in hits.scene.part.components]
    return np.array([*numbers, table], np.int16)[
        np.where(hits.component == TABLE, len(numbers), hits.component)
    ]


@dataclass(frozen=True)
class _VisibleChange:
    """Visible effect of a defect in the views, [V, S, S] each."""

    masks: NDArray[np.bool_]
    """Pixels of the defect that a person can see."""
    contrast: NDArray[np.float32]
    """Difference of the noise-free images, largest color channel, 0..1; 0 outside the changed region."""


def _visible_change(before: RayHits, after: RayHits) -> _VisibleChange:
    """The pixels that the defect changed visibly.

    A pixel belongs to the defect where another surface, or the same one at another depth, is visible, or
    where a mark of the defect lies. Shadows of the defect elsewhere do not count. Only pixels near visible
    contrast are kept: the invisible rim of a shallow dent is not ground truth.
    """
    size = before.cameras.size
    ids: dict[object, int] = {}
    region = _surface_ids(before, ids) != _surface_ids(after, ids)
    region |= np.abs(before.depth - after.depth) > _DEPTH_STEP
    region |= after.mark > 0
    pixels: Pixels = np.flatnonzero(region).astype(np.int32)
    contrast = np.zeros((len(before.cameras.position[0]), size, size), np.float32)
    contrast.ravel()[pixels] = np.abs(before.colors_at(pixels) - after.colors_at(pixels)).max(0)
    reach = max(1, round(size / 64))
    near_contrast = binary_dilation(contrast > _CONTRAST, np.ones((1, 3, 3), bool), iterations=reach)
    return _VisibleChange(region.reshape(contrast.shape) & near_contrast, contrast)


def _classes(
    spec: SampleSpec, after: RayHits, change: _VisibleChange, site: DefectSite | None
) -> tuple[str, ...]:
    """Per view the code of the defect with most pixels in its mask, ``OK`` where too little is visible."""
    min_pixels = max(6, round(0.0005 * after.cameras.size**2))
    surface = spec.kinds[-1]
    result = []
    for view, (mask, contrast) in enumerate(zip(change.masks, change.contrast, strict=True)):
        if (contrast > _CONTRAST).sum() < min_pixels:
            result.append("OK")
        elif len(spec.kinds) == 1 or site is None:
            result.append(spec.kinds[0])
        else:
            pixels: Pixels = (np.flatnonzero(mask) + view * mask.size).astype(np.int32)
            near = length(after.points(pixels) - site.center) < 0.45
            result.append(surface if near.mean() > 0.5 else spec.kinds[0])
    return tuple(result)
