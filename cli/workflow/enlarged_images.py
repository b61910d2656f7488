"""Warns where a store would enlarge the images of its dataset."""

from cache.building.request import BuildRequest
from idif.data.images import photograph_shape
from idif.errors import DatasetError
from idif.paths import resolve_inside


def describe_enlarged(request: BuildRequest) -> str | None:
    """A sentence about images that are smaller than the store makes them; None if there are none.

    One image of each category is looked at. One that cannot be read is left to the build to report.
    """
    encoders = request.encoders
    if encoders.image_size is None:
        return None
    side = encoders.image_reader.crop_from or encoders.image_size
    first_images: dict[str, str] = {}
    for sample in request.index.samples:
        for view in sample.views:
            if view is not None:
                first_images.setdefault(sample.category, view.image)
    for category, image in first_images.items():
        try:
            height, width = photograph_shape(resolve_inside(request.root, image))
        except DatasetError:
            continue
        if min(height, width) < side:
            return (
                f"images of {category} are {width}x{height} pixels and will be enlarged to {side}x{side}, "
                "which adds no detail; import the photographs with --size original, or choose a smaller "
                "image size"
            )
    return None
