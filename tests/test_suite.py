"""The suite itself: without a GPU driver, in the background, and in CI on a clean machine."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tools import software_gpu
from tools.software_gpu import NO_GPU

ROOT = Path(__file__).parent.parent
GPU, OTHER = "tests/backends/webgpu/lowering/test_quants.py", "tests/test_options.py"


def pytest_run(*words, **variables):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words]
    return subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, timeout=120)


def test_a_missing_driver_is_told_once_and_before_all_tests():
    done = pytest_run(GPU, OTHER, WGPUPY_WGPU_ADAPTER_NAME="no such adapter")
    assert done.returncode == 4 and (done.stdout + done.stderr).strip().endswith(f"ERROR: {NO_GPU}")
    assert "passed" not in done.stdout and "failed" not in done.stdout


def test_a_missing_driver_is_told_once_where_processes_share_the_tests(tmp_path):
    (tmp_path / "test_it.py").write_text("import pytest\n\n\n@pytest.mark.gpu\ndef test_it():\n    pass\n")
    words = ("-n", "2", "--dist", "loadfile", "-p", "tests.conftest", "--rootdir", ROOT, tmp_path)
    done = pytest_run(*words, WGPUPY_WGPU_ADAPTER_NAME="no such adapter")
    assert done.returncode == pytest.ExitCode.INTERRUPTED and (done.stdout + done.stderr).count(NO_GPU) == 1
    assert "passed" not in done.stdout and "failed" not in done.stdout and "Traceback" not in done.stderr


def test_the_other_tests_run_without_a_driver():
    done = pytest_run("-rA", "-m", "not gpu and not slow", GPU, OTHER, WGPUPY_WGPU_ADAPTER_NAME="no such adapter")
    assert done.returncode == 0 and "PASSED tests/test_options.py" in done.stdout and GPU not in done.stdout


def test_signals_reach_the_programs_of_a_suite_in_the_background(tmp_path):
    """A shell and nohup let such jobs ignore them."""
    (tmp_path / "test_it.py").write_text(
        "import subprocess, sys\n\n\ndef test_it():\n    assert subprocess.run([sys.executable, '-c', "
        "'import signal; assert signal.SIG_IGN not in map(signal.getsignal, (signal.SIGINT, signal.SIGHUP))']).returncode == 0\n"
    )

    def ignore():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path]
    done = subprocess.run(command, cwd=ROOT, preexec_fn=ignore, timeout=120)
    assert done.returncode == 0


def test_signals_to_this_process_are_sent_by_one_module_alone():
    """Others would come after a test that failed before: to pytest, which ends, or to xdist's worker, which dies."""
    senders = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("*.py")
        if path != Path(__file__) and any(word in path.read_text(encoding="utf-8") for word in ("kill(os.getpid", "pthread_kill("))
    }
    assert senders == {"tests/interrupts.py"}


APT = """#!/bin/bash
echo "apt-get $*"
[ "$1" = update ] || { printf '#!/bin/bash\\necho make "$@"\\n' > "${0%/*}/make"; /bin/chmod +x "${0%/*}/make"; }
"""


@pytest.mark.parametrize(
    ("present", "asked", "python"),
    [
        ({}, "make python3.11 python3.11-venv chromium", "python3.11"),
        ({"python3": "exit 1", "python3.12": ""}, "make chromium", "python3.12"),  # the system's own is too old
        ({"python3": 'case "$2" in *ensurepip*) exit 1;; esac', "google-chrome": ""}, "make python3-venv", "python3"),
    ],
)
def test_ci_installs_what_a_clean_machine_lacks(present, asked, python, tmp_path):
    """With stand-ins for the system's programs. Mesa is not among it: `make test` fetches that."""
    for name in ("bash", "dirname", "id", "env"):
        (tmp_path / name).symlink_to(shutil.which(name))
    programs = {"apt-get": APT, "sudo": '#!/bin/bash\n"$@"\n'} | {name: f"#!/bin/bash\n{code}\n" for name, code in present.items()}
    for name, code in programs.items():
        (tmp_path / name).write_text(code)
        (tmp_path / name).chmod(0o755)
    done = subprocess.run([ROOT / ".ci" / "run"], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True)
    update, install, make = done.stdout.splitlines()
    assert update == "apt-get update -qq" and install.endswith(f"--no-install-recommends {asked}")
    assert make == f"make PYTHON={python} check clients"


def test_ci_says_what_is_missing_where_it_cannot_install(tmp_path):
    for name in ("bash", "dirname", "id", "env"):
        (tmp_path / name).symlink_to(shutil.which(name))
    done = subprocess.run([ROOT / ".ci" / "run"], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("this machine lacks make python3.11") and done.stderr.count("\n") == 1


def test_a_browser_that_is_missing_is_told_once(tmp_path):
    """And before any test of the web page runs; `make test` says so as well."""
    (tmp_path / "test_it.py").write_text("import pytest\n\n\n@pytest.mark.browser\ndef test_it():\n    pass\n")
    environment = {**os.environ, "CHROMIUM": "no-such-browser"}
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "--rootdir", ROOT, tmp_path]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR and "apt-get install --no-install-recommends chromium" in done.stderr
    told = subprocess.run([sys.executable, ROOT / "tools" / "chromium.py"], env=environment, capture_output=True, text=True)
    assert told.returncode == 1 and told.stderr.count("\n") == 1 and "chromium" in told.stderr


# As a machine without lists that has libelf1 and no libLLVM; the packages are folders here.
DEBIAN = {
    "apt-get": """
import os, sys
from pathlib import Path

options = dict(word.split("=", 1) for flag, word in zip(sys.argv, sys.argv[1:]) if flag == "-o")
lists, rest = Path(options["Dir::State::Lists"]), [word for word in sys.argv[1:] if word not in options]
if "update" in rest:
    (lists / "Packages").touch()
elif "install" in rest:
    assert (lists / "Packages").exists() and "--simulate" in rest and options["Dir::State::status"] == "/dev/null"
    print("Inst libc6 (2.36 Debian)\\nInst libelf1 (1 Debian)\\nInst libLLVM (2 Debian)\\nInst python3 (3 Debian)")
    print("Inst mesa-vulkan-drivers (4 Debian)\\nConf libLLVM (2 Debian)")
else:
    for name in rest[rest.index("download") + 1:]:
        Path(f"{name}.deb").touch()
""",
    "dpkg-query": "print('libc6 installed\\nlibelf1 installed\\nlibLLVM config-files')",
    "dpkg": """
import sys
from pathlib import Path

_, flag, package, root = sys.argv
name = Path(package).stem
library = Path(root) / "usr/lib/a-linux" / ("libvulkan_lvp.so" if "mesa" in name else name)
library.parent.mkdir(parents=True, exist_ok=True)
library.touch()
if "mesa" in name:
    description = Path(root) / "usr/share/vulkan/icd.d/lvp_icd.a.json"
    description.parent.mkdir(parents=True)
    description.write_text('{"ICD": {"library_path": "/usr/lib/a-linux/libvulkan_lvp.so", "api_version": "1.1"}}')
""",
}


def debian(folder: Path, **programs: str) -> str:
    """The PATH of a machine with these programs and no others."""
    folder.mkdir()
    for name, code in (DEBIAN | programs).items():
        (folder / name).write_text(f"#!{sys.executable}\n{code}")
        (folder / name).chmod(0o755)
    return str(folder)


def test_mesa_is_unpacked_without_root_and_with_what_the_system_lacks(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", debian(tmp_path / "bin"))
    folder = tmp_path / "mesa"
    software_gpu.fetch(folder)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    library = "root/usr/lib/a-linux/libvulkan_lvp.so"
    assert files == ["driver.json", "root/usr/lib/a-linux/libLLVM", library, "root/usr/share/vulkan/icd.d/lvp_icd.a.json"]
    assert json.loads((folder / "driver.json").read_text())["ICD"] == {"library_path": str(folder / library), "api_version": "1.1"}
    assert not list(tmp_path.glob("*.partial"))


def test_tests_see_the_fetched_driver_and_one_that_a_person_names_comes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", debian(tmp_path / "bin"))
    folder = tmp_path / "mesa"
    software_gpu.fetch(folder)
    environment = {"LD_LIBRARY_PATH": "/mine"}
    monkeypatch.setattr(os, "environ", environment)
    software_gpu.use(folder)
    libraries = f"{folder}/root/usr/lib/a-linux:{folder}/root/lib/a-linux:/mine"
    driver = str(folder / "driver.json")
    assert environment == {"VK_DRIVER_FILES": driver, "VK_ICD_FILENAMES": driver, "LD_LIBRARY_PATH": libraries}
    software_gpu.load(folder)  # files that are no libraries: not loaded, and no error
    for named in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES"):
        monkeypatch.setattr(os, "environ", {named: "/my.json"})
        software_gpu.use(folder)
        assert os.environ == {named: "/my.json"}
    monkeypatch.setattr(os, "environ", {})
    software_gpu.use(tmp_path / "not fetched")
    assert os.environ == {}


@pytest.mark.parametrize(
    ("programs", "told"),
    [({}, ""), ({"apt-get": "raise SystemExit(100)"}, "Mesa could not be fetched: Command"), ({"dpkg-query": "0"}, "")],
)
def test_one_sentence_where_no_driver_can_be_had(programs, told, tmp_path, monkeypatch, capsys):
    """Without Debian's tools; where they fail; and where what they gave is no driver."""
    path = debian(tmp_path / "bin", **programs) if programs else str(tmp_path)
    monkeypatch.setattr(software_gpu, "fetch", functools.partial(software_gpu.fetch, tmp_path / "mesa"))
    monkeypatch.setenv("PATH", path)
    monkeypatch.setattr(software_gpu, "found", lambda: False)
    with pytest.raises(SystemExit) as ended:
        software_gpu.main()
    assert ended.value.code == NO_GPU and capsys.readouterr().err.startswith(told)
    assert not list(tmp_path.glob("mesa/driver.json")) or programs.keys() == {"dpkg-query"}


def test_make_test_gets_the_driver_and_the_set_up_is_not_silent():
    """Half a minute of pip without a word looks like a fault."""
    done = subprocess.run(["make", "--dry-run", "VENV=none", "test"], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    tests = "none/bin/python -m pytest -n 2 --dist loadfile --max-worker-restart 0"
    assert lines.index("none/bin/python tools/software_gpu.py") < lines.index(tests)
    assert len([line for line in lines if " pip install " in line]) == 2 and "--quiet" not in done.stdout
