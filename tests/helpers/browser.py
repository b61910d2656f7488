"""A Chromium of this machine, for tests that look at a page as a visitor would."""

import shutil

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
"""Its path, or None where there is none: such tests then skip."""
