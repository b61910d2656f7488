"""Finds modules of the user that shadow the packages `cache` and `cli`, installed beside `idif`."""

import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("cache", "cli")
INSTALLED_IN = Path(__file__).resolve().parents[1]
"""The folder that holds `idif`, `cache` and `cli`."""


def hidden_package() -> str | None:
    """One sentence about a package that is shadowed in this process, with the remedy; None if none is."""
    for name in PACKAGES:
        expected = INSTALLED_IN / name
        found = _location(name)
        if found is None:
            return f"{expected}: missing; install idif again"
        if found not in (expected, expected / "__init__.py"):
            return (
                f"{found}: hides the package {name!r} of idif, which is {expected}; rename it, take its "
                "folder out of PYTHONPATH, or start idif with `idif` or `python -m idif`"
            )
    return None


def hiding_files(folder: Path) -> list[Path]:
    """Files and folders that shadow a package in programs that search ``folder`` for modules.

    `python -m`, notebooks and scripts in that folder do. A folder without ``__init__.py`` shadows only
    packages that are not on the search path themselves, as in an editable installation.
    """
    if folder.resolve() == INSTALLED_IN:
        return []
    on_path = any(Path(entry).resolve() == INSTALLED_IN for entry in sys.path)
    found = []
    for name in PACKAGES:
        package, module = folder / name, folder / f"{name}.py"
        if (package / "__init__.py").is_file() or (package.is_dir() and not on_path and not module.is_file()):
            found.append(package)
        elif module.is_file():
            found.append(module)
    return found


def _location(name: str) -> Path | None:
    """The file of a module or package, or the folder of a package without ``__init__.py``."""
    spec = find_spec(name)
    if spec is None:
        return None
    locations = list(spec.submodule_search_locations or ())
    place = spec.origin if spec.has_location and spec.origin is not None else next(iter(locations), None)
    return None if place is None else Path(place).resolve()
