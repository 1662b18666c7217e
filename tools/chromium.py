"""The browser of the tests of the web page: Debian's Chromium, or another that is installed.

`python tools/chromium.py` (which `make test` does once) says what to install where there is none; `.ci/run` installs it.
"""

from __future__ import annotations

import os
import shutil
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# It asks nobody but the page: no updates, no look-ups, no first-run pages. Its sandbox wants rights that containers do not have.
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--no-first-run", "--disable-dev-shm-usage")  # fmt: skip
NO_BROWSER = (
    "the tests of the web page need Chromium, and there is none: `apt-get install --no-install-recommends chromium` on Debian "
    "(`chromium` on Fedora and Arch Linux), or name a Chrome in the environment variable CHROMIUM, or run the other tests with "
    "`.venv/bin/python -m pytest -m 'not browser and not slow'`"
)


def find() -> str | None:
    """The path of the browser; None: there is none."""
    named = os.environ.get("CHROMIUM")
    if named:
        return shutil.which(named)
    return next((path for name in NAMES if (path := shutil.which(name))), None)


if __name__ == "__main__":
    if find() is None:
        sys.exit(NO_BROWSER)
