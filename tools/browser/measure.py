"""Runs an exported model in Chromium, and says what a browser takes for it.

    python -m tools.browser.measure FOLDER [--tokens 32] [--gpu]

Without `--gpu` Chromium computes on SwiftShader, its software GPU.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tools import chromium

PAGE = Path(__file__).parent
SOFTWARE = ("--use-webgpu-adapter=swiftshader", "--enable-unsafe-webgpu")
HARDWARE = ("--enable-unsafe-webgpu", "--enable-features=Vulkan")
SECONDS = 600


class Files(http.server.SimpleHTTPRequestHandler):
    """The page's files, and below /model/ those of the folder."""

    def __init__(self, *arguments: Any, model: Path, **options: Any):
        self._model = model
        super().__init__(*arguments, directory=str(PAGE), **options)

    def translate_path(self, path: str) -> str:
        name = path.removeprefix("/model/")
        return str(self._model / name) if name in ("model.json", "weights.bin") else super().translate_path(path)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(model: Path) -> Iterator[str]:
    """The address of the page."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Files, model=model))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/index.html"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def run(model: Path, tokens: int, software: bool = True) -> dict[str, Any]:
    """What the page found: ids, tokensPerSecond, promptSeconds, seconds, bytes, name. Raises RuntimeError with its words."""
    from playwright.sync_api import sync_playwright

    arguments = [each for each in chromium.ARGUMENTS if each != "--disable-gpu"] + list(SOFTWARE if software else HARDWARE)
    with served(model) as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium.find(), args=arguments)
        try:
            page = browser.new_page()
            page.goto(f"{address}?tokens={tokens}&model={quote('model')}")
            page.wait_for_function("window.found", timeout=1e3 * SECONDS)
            found: dict[str, Any] = page.evaluate("window.found")
        finally:
            browser.close()
    if "error" in found:
        raise RuntimeError(found["error"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.browser.measure", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--gpu", action="store_true", help="the machine's own GPU instead of SwiftShader")
    options = parser.parse_args()
    print(json.dumps(run(options.folder, options.tokens, not options.gpu)))


if __name__ == "__main__":
    main()
