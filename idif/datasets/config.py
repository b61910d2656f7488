"""The config section of the data."""

from pydantic import Field, field_validator

from idif.paths import is_portable_name, shown
from idif.settings import Section, UserPath


class DataConfig(Section):
    """Which samples."""

    reader: str = "realiad"
    """Layout of the dataset, a key of `idif.datasets.readers.READERS`."""
    root: UserPath | None = None
    """The dataset's folder. Optional with a store, which then checks that they agree."""
    images: str = "realiad_256"
    """Folder of the images below the root."""
    annotations: str = "realiad_jsons"
    """Folder of the annotations below the root."""
    categories: tuple[str, ...] = ()
    """Categories to use; empty means all that the data or the store hold."""
    drop_incomplete: bool = False
    """Leave out samples that lack a view instead of keeping them with a view mask."""
    views: tuple[int, ...] | None = None
    """Camera numbers to use (without a store); None means all."""
    rig: dict[int, tuple[float, float, float]] = Field({})
    """Camera number -> (azimuth, tilt, roll) in degrees: tilt 0 looks straight down, and azimuth 0, 90, 180,
    270 stands at the bottom, left, top, right of that camera's image. Cameras that are not named get the
    default rig: the first from above, the rest around at 45 degrees."""

    @field_validator("categories")
    @classmethod
    def _check_categories(cls, categories: tuple[str, ...]) -> tuple[str, ...]:
        """Categories become folders of runs and stores."""
        for name in categories:
            if not is_portable_name(name):
                raise ValueError(f"{shown(name)} cannot be the name of a folder on every system")
        return categories
