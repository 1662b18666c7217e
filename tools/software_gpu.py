"""Mesa's software GPU for the tests: Debian's packages, unpacked into .venv without root.

`python tools/software_gpu.py` (which `make test` does once) fetches it if wgpu finds no GPU driver; it needs apt-get and dpkg.
tests/conftest.py calls `use`. Nothing else of .venv sees it: `lacewing` there has only the system's drivers.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / ".venv" / "mesa"
PACKAGE = "mesa-vulkan-drivers"
NO_GPU = (
    "the GPU tests need a GPU driver, and wgpu finds none: install Mesa's software adapter (`make test` does so on Debian and "
    "Ubuntu; the package is mesa-vulkan-drivers on Fedora and vulkan-swrast on Arch Linux), or run the other tests with "
    "`.venv/bin/python -m pytest -m 'not gpu and not slow'`"
)
FINDS_A_GPU = "from lacewing.backends.webgpu.device.adapters import adapters; adapters()"


def use(folder: Path = FOLDER) -> None:
    """Shows this process and its children the fetched driver, unless the environment names one or none was fetched."""
    driver = folder / "driver.json"
    if not driver.exists() or os.environ.get("VK_DRIVER_FILES") or os.environ.get("VK_ICD_FILENAMES"):
        return
    os.environ["VK_DRIVER_FILES"] = os.environ["VK_ICD_FILENAMES"] = str(driver)  # the second for loaders before 1.3.207
    paths = [*map(str, _folders(driver)), os.environ.get("LD_LIBRARY_PATH")]
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, paths))


def load(folder: Path = FOLDER) -> None:
    """Loads the libraries that `use` shows to children: this process began without LD_LIBRARY_PATH, which is read only then."""
    driver = folder / "driver.json"
    if os.environ.get("VK_DRIVER_FILES") == str(driver):
        _load("libvulkan.so.1", _folders(driver))
        _load("libvulkan_lvp.so", _folders(driver))


def _folders(driver: Path) -> list[Path]:
    """Where the libraries are: beside the driver, and the same in /lib."""
    beside = Path(json.loads(driver.read_text(encoding="utf-8"))["ICD"]["library_path"]).parent
    return [beside, driver.parent / "root" / "lib" / beside.name]


def _load(name: str, folders: list[Path]) -> None:
    """Load a library from one of the folders, if it is there, after those that it lacks."""
    path, before = next((folder / name for folder in folders if (folder / name).exists()), None), ""
    while path:
        try:
            ctypes.CDLL(str(path))
            return
        except OSError as error:  # "libdrm.so.2: cannot open shared object file", or the path of a damaged one
            lacked = str(error).partition(":")[0]
            if lacked == before or "/" in lacked:
                return
            _load(lacked, folders)
            before = lacked


def fetch(folder: Path = FOLDER) -> None:
    """Packages that the system lacks, unpacked, and `driver.json`. Raises OSError or CalledProcessError."""
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name in ("lists/partial", "cache/archives/partial", "packages"):
        (partial / name).mkdir(parents=True)
    # the lists are our own: the system's may be missing, and need root. So is the cache.
    apt = ["apt-get", "-q", "-o", f"Dir::State::Lists={partial}/lists", "-o", f"Dir::Cache={partial}/cache"]
    apt += ["-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3"]  # root: do not become another user, who cannot write here
    subprocess.run([*apt, "update"], check=True)
    asked = [*apt, "-o", "Dir::State::status=/dev/null", "--simulate", "--no-install-recommends", "install", PACKAGE]
    plan = subprocess.run(asked, check=True, capture_output=True, text=True).stdout  # as if nothing were installed
    query = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n"]
    known = subprocess.run(query, check=True, capture_output=True, text=True).stdout.splitlines()
    present = {line.split()[0] for line in known if line.endswith(" installed")}
    needed = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    lacking = [name for name in needed if re.match("lib(?!python)|zlib", name) and name not in present]
    subprocess.run([*apt, "download", PACKAGE, *lacking], check=True, cwd=partial / "packages")
    for package in (partial / "packages").glob("*.deb"):
        subprocess.run(["dpkg", "--extract", package, partial / "root"], check=True)
    library = next(partial.rglob("libvulkan_lvp.so")).relative_to(partial)
    description = json.loads(next(partial.rglob("lvp_icd*.json")).read_text(encoding="utf-8"))
    description["ICD"]["library_path"] = str(folder / library)
    (partial / "driver.json").write_text(json.dumps(description), encoding="utf-8")
    for name in ("lists", "cache", "packages"):
        shutil.rmtree(partial / name)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def found() -> bool:
    """Whether a new process finds a GPU."""
    return subprocess.run([sys.executable, "-c", FINDS_A_GPU], capture_output=True).returncode == 0


def main() -> None:
    """Fetches the driver if no GPU is found; an error of one sentence if that does not help."""
    use()
    if found():
        return
    if shutil.which("apt-get") and shutil.which("dpkg"):
        print(f"fetching Mesa's software adapter for the GPU tests into {FOLDER}", flush=True)
        try:
            fetch()
        except (OSError, StopIteration, subprocess.CalledProcessError) as error:
            print(f"Mesa could not be fetched: {error}", file=sys.stderr)
        use()
        if found():
            return
    sys.exit(NO_GPU)


if __name__ == "__main__":
    main()
