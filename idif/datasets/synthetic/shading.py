"""Shading: soft boxes, a key lamp, shadows and occlusion from a coarse distance volume, camera response."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from idif.datasets.synthetic.camera_rig import TablePose
from idif.datasets.synthetic.distance_volume import DistanceVolume
from idif.datasets.synthetic.materials import Color
from idif.datasets.synthetic.part_model import MARK_THRESHOLD, TABLE, Part
from idif.datasets.synthetic.sdf import Points, Values, dot, length, noise, smoothstep, unit


def linear_light(color: Color) -> Points:
    """An sRGB color as linear light, [3, 1]."""
    return np.power(np.array(color, np.float32), np.float32(2.2))[:, None]


@dataclass(frozen=True)
class Light:
    """The lamps over the rig for one sample."""

    key_azimuth: float
    """Degrees, as for a camera."""
    key_elevation: float
    key: float
    """Radiance of the key lamp on a surface that faces it."""
    fill: float
    """Radiance of the diffuse surroundings."""

    @cached_property
    def direction(self) -> Points:
        """Unit vector [3, 1] towards the key lamp, in the rig's frame."""
        a, e = np.radians(self.key_azimuth), np.radians(self.key_elevation)
        vector = np.array([np.cos(a) * np.cos(e), np.sin(a) * np.cos(e), np.sin(e)], np.float32)
        return vector[:, None]


# Soft boxes that show in reflections: azimuth and elevation (degrees), cosine of the half angle, radiance.
_BOXES = ((205.0, 38.0, 0.90, 1.1), (310.0, 30.0, 0.93, 0.8), (120.0, 25.0, 0.95, 0.55))


def environment_light(v: Points, roughness: Values, light: Light) -> Values:
    """Radiance [N] from directions [3, N] in the rig's frame, blurred by the surface's roughness [N]."""
    up = v[2]
    blur = 0.03 + 0.28 * roughness * roughness
    result = 0.20 + 0.42 * smoothstep(-0.1, 0.95, up)
    result = result * light.fill

    def box(direction: Points, cosine: float, radiance: float) -> Values:
        t = np.clip((dot(v, direction) - (cosine - blur)) / (2 * blur), 0, 1)
        value: Values = radiance * t * t * (3 - 2 * t)
        return value

    result += box(
        light.direction, 0.88, 1.5 * light.key / (1 + 2 * float(roughness.mean() if len(roughness) else 0))
    )
    for azimuth, elevation, cosine, radiance in _BOXES:
        side = replace(light, key_azimuth=azimuth, key_elevation=elevation).direction
        result += box(side, cosine, radiance * light.fill)
    return result


@dataclass(frozen=True)
class Surface:
    """Points to shade, with the component of each."""

    p: Points
    """In the part's frame, [3, N]."""
    toward_eye: Points
    """Unit vectors, [3, N]."""
    component: NDArray[np.int16]
    """[N], `TABLE` for the mat."""


@dataclass(frozen=True)
class Scene:
    """One sample, ready to be rendered."""

    part: Part
    volume: DistanceVolume
    pose: TablePose
    light: Light
    offset: Points
    """Offset of this sample's textures in the noise, [3, 1]."""

    def shade(self, surface: Surface) -> Points:
        """Linear RGB light [3, N] from the surface to the camera."""
        result = np.empty_like(surface.p)
        table = surface.component == TABLE
        for selected, shade in ((table, self._shade_table), (~table, self._shade_part)):
            at = np.flatnonzero(selected)
            if len(at):
                subset = Surface(surface.p[:, at], surface.toward_eye[:, at], surface.component[at])
                result[:, at] = shade(subset)
        return result

    def marked(self, p: Points) -> NDArray[np.int16]:
        """Number of the visible mark at points [3, N], 0 for none."""
        result = np.zeros(p.shape[1], np.int16)
        for number, mark in enumerate(self.part.marks, 1):
            result[mark.weight(p) > MARK_THRESHOLD] = number
        return result

    def _openness(self, p: Points, v: Points, reaches: tuple[float, ...]) -> Values:
        """How unobstructed points [3, N] are along unit ``v``, 0..1 [N], tested at some distances."""
        result = np.ones(p.shape[1], np.float32)
        for reach in reaches:
            result = np.minimum(
                result, self.volume.distance(p + v * np.float32(reach)) * np.float32(1.0 / reach)
            )
        return np.clip(result, 0.0, 1.0)

    def _occlusion(self, p: Points, normal: Points) -> Values:
        """Ambient light that reaches points [3, N] with these normals, 0..1 [N]."""
        blocked = np.zeros(p.shape[1], np.float32)
        for reach, weight in ((0.07, 3.2), (0.2, 1.5), (0.45, 0.55)):
            blocked += weight * np.maximum(reach - self.volume.distance(p + normal * np.float32(reach)), 0.0)
        result: Values = np.clip(1.0 - blocked, 0.0, 1.0)
        return result

    def _shadow(self, p: Points, toward_light: Points) -> Values:
        """Light of the key lamp, a disk of about 10 degrees, that reaches points [3, N]: 0..1 [N]."""
        result = np.ones(p.shape[1], np.float32)
        t = np.full(p.shape[1], 0.05, np.float32)
        active = np.arange(p.shape[1])
        top = self.part.height + 0.02
        for _ in range(13):
            q = p[:, active] + toward_light * t[active]
            d = self.volume.distance(q)
            result[active] = np.minimum(result[active], 0.5 + 5.0 * d / t[active])
            t[active] += np.clip(0.9 * d, 0.05, 0.32)
            active = active[(result[active] > 0) & (q[2] < top)]
            if not len(active):
                break
        s = np.clip(result, 0.0, 1.0)
        return s * s * (3 - 2 * s)

    def _shade_table(self, surface: Surface) -> Points:
        p = surface.p
        world = self.pose.to_world(p)
        up = np.zeros_like(p)
        up[2] = 1.0
        shadow, occlusion = np.ones(p.shape[1], np.float32), np.ones(p.shape[1], np.float32)
        reach = self.part.radius + 1.4 * self.part.height
        near = np.flatnonzero(p[0] ** 2 + p[1] ** 2 < reach * reach)
        shadow[near] = self._shadow(p[:, near], self.pose.to_part(self.light.direction))
        occlusion[near] = self._occlusion(p[:, near], up[:, near])
        weave = noise(world * np.float32(42.0) + self.offset)[0]
        patches = noise(world * np.float32(1.3) + self.offset)[0]
        albedo = linear_light(self.part.table) * (1.0 + 0.07 * weave + 0.07 * patches)
        key = self.light.key * shadow * self.light.direction[2]
        result: Values = albedo * (0.75 * key + 0.72 * self.light.fill * occlusion)
        return result

    def _shade_part(self, surface: Surface) -> Points:
        p, part = surface.p, self.part
        materials = [component.material for component in part.components]
        which = surface.component

        def per_point(values: list[float]) -> Values:
            return np.array(values, np.float32)[which]

        normal = part.normals(p, which)
        q = p.copy()
        turned = np.array([m.turned for m in materials])[which]
        q[0] = np.where(turned, length(p[:2]), p[0])
        frequency = np.array([m.frequency for m in materials], np.float32).T[:, which]
        fine = noise(q * frequency + self.offset, 3)
        coarse = noise(p * np.float32(3.1) + self.offset)[0]
        normal = unit(normal + per_point([m.grain for m in materials]) * fine)

        albedo = np.concatenate([linear_light(m.color) for m in materials], axis=1)[:, which]
        for number, material in enumerate(materials):
            if material.pattern is not None:
                at = np.flatnonzero(which == number)
                weight = material.pattern(p[:, at])
                albedo[:, at] += (linear_light(material.pattern_color) - albedo[:, at]) * weight
        albedo *= 1.0 + per_point([m.mottle for m in materials]) * (0.8 * coarse + 0.6 * fine[0])
        roughness = per_point([m.roughness for m in materials]) * (1.0 + 0.15 * coarse)
        metallic = per_point([m.metallic for m in materials])
        for mark in part.marks:
            weight = mark.opacity * mark.weight(p)
            albedo += (linear_light(mark.color) - albedo) * weight
            roughness += (mark.roughness - roughness) * weight
            metallic += (mark.metallic - metallic) * weight
        return self._lit(surface, normal, albedo, roughness, metallic)

    def _lit(
        self, surface: Surface, normal: Points, albedo: Points, roughness: Values, metallic: Values
    ) -> Points:
        """Light [3, N] reflected by points of the part with these normals and materials."""
        p, v, light = surface.p, surface.toward_eye, self.light
        lamp = self.pose.to_part(light.direction)
        facing = dot(normal, v)
        mirrored = 2.0 * facing * normal - v
        facing = np.maximum(facing, 0.02)
        key = light.key * np.maximum(dot(normal, lamp), 0.0)
        lit = np.flatnonzero(key > 0)
        key[lit] *= self._shadow(p[:, lit] + np.float32(0.02) * normal[:, lit], lamp)
        occlusion = self._occlusion(p, normal)
        mat = linear_light(self.part.table) * np.float32(0.75 * light.fill)
        upward = 0.5 + 0.5 * normal[2]
        ambient = light.fill * 0.72 * upward + mat * (1.0 - upward)

        reflected = environment_light(self.pose.to_world(mirrored), roughness, light)
        free = self._openness(p + np.float32(0.02) * normal, mirrored, (0.15, 0.5))
        floor = smoothstep(0.02, -0.12, mirrored[2])
        incoming = (reflected + (mat - reflected) * floor) * (0.15 + 0.85 * free) * (0.35 + 0.65 * occlusion)
        grazing = (1.0 - facing) ** 5 * (1.0 - roughness) ** 2
        tint = 0.04 + (albedo - 0.04) * metallic
        fresnel = tint + (1.0 - tint) * grazing
        diffuse = albedo * (1.0 - metallic) * (0.85 * key + ambient * occlusion)
        result: Values = diffuse + fresnel * incoming * (1.0 + 0.6 * metallic)
        return result


def camera_response(light: Points, gain: Points) -> Points:
    """Response of a camera of this gain to linear RGB [3, N]: a film-like shoulder, then sRGB gamma; 0..1."""
    x = np.maximum(light * gain, 0.0)
    x = x * (1.0 + x * 0.25) / (1.0 + 0.62 * x)
    result: Values = np.power(np.minimum(x, 1.0), np.float32(1 / 2.2))
    return result
