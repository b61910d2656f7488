"""`python -m idif`: the command line, also in a folder that holds a ``cache.py`` or ``cli.py``."""

import sys
from importlib import import_module
from pathlib import Path

from idif.package_names import INSTALLED_IN, hidden_package


def main() -> None:
    """Run the command line as the console script `idif` does: the working folder is not searched for modules.

    The command line is looked up by its name at run time: modules of `idif` import neither `cli` nor `cache`.
    """
    # `python -m` puts the working folder first, unless -P is given
    if not sys.flags.safe_path and Path(sys.path[0]).resolve() != INSTALLED_IN:
        del sys.path[0]
    if (problem := hidden_package()) is not None:
        sys.stderr.write(f"error: {problem}\n")
        sys.exit(2)
    import_module("cli.start").main()


if __name__ == "__main__":
    main()
