"""A wheel built from this checkout, installed elsewhere, finds and reads what ships with it."""

from __future__ import annotations

import configparser
import os
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from barista.errors import DataError
from barista.resources import FOLDERS, find

CHECKOUT = Path(__file__).resolve().parent.parent


def run(*command: str | Path, cwd: Path) -> str:
    """Run a program and return what it prints; a failure shows its errors."""
    words = [str(part) for part in command]
    # What the caller's PYTHONPATH names would be imported instead of what was installed.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the checkout: a build leaves nothing here and meets nothing of earlier ones."""
    source = tmp_path_factory.mktemp("source")
    for name in ("barista", *FOLDERS):
        shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    # The build back end itself, without pip around it: no network, no second environment. The wheel is made
    # from the source distribution, so that both are known to be whole.
    back_end = "import sys, setuptools.build_meta as b; getattr(b, sys.argv[1])('dist')"
    run(sys.executable, "-c", back_end, "build_sdist", cwd=source)
    (archive,) = (source / "dist").glob("*.tar.gz")
    shutil.unpack_archive(archive, source / "unpacked", filter="data")
    (unpacked,) = (source / "unpacked").iterdir()
    run(sys.executable, "-c", back_end, "build_wheel", cwd=unpacked)
    (built,) = (unpacked / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment's interpreter: the wheel is its own, the dependencies are borrowed from here."""
    home = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(home)
    scripts, name = ("Scripts", "python.exe") if sys.platform == "win32" else ("bin", "python")
    interpreter = home / scripts / name
    pip = (sys.executable, "-m", "pip", "--python", interpreter)
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=home)
    # Plain paths behind the environment's own: the wheel comes first, and no editable hook from here runs.
    own = Path(run(interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home))
    (own / "borrowed.pth").write_text("\n".join(site.getsitepackages()) + "\n", encoding="utf-8")
    return interpreter


def test_setup_lists_every_package() -> None:
    config = configparser.ConfigParser()
    config.read(CHECKOUT / "setup.cfg", encoding="utf-8")
    listed = set(config["options"]["packages"].split())
    folders = {path.parent for path in (CHECKOUT / "barista").rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []
    expected = {".".join(folder.relative_to(CHECKOUT).parts) for folder in folders}
    assert listed == expected | {f"barista.{folder}" for folder in FOLDERS}


def test_wheel_holds_every_shipped_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for folder in FOLDERS:
        shipped = [path for path in (CHECKOUT / folder).rglob("*") if path.is_file()]
        assert shipped, f"{folder} is empty"
        assert [str(path) for path in shipped if f"barista/{path.relative_to(CHECKOUT)}" not in names] == []
    assert {name.split("/")[0].split("-")[0] for name in names} == {"barista", "barista_caffe"}


def test_installed_wheel_reads_a_network_elsewhere(python: Path, tmp_path: Path) -> None:
    script = ("import barista\n"
              "from barista.resources import find\n"
              "from barista.frontends.prototxt import read_net\n"
              "path = find('prototxt', 'lenet', 'deploy.prototxt')\n"
              "print(barista.__file__, path, read_net(path).name, sep='\\n')\n")
    package, path, name = run(python, "-c", script, cwd=tmp_path).splitlines()
    assert Path(package).is_relative_to(python.parent.parent)
    assert Path(path) == Path(package).parent / "prototxt" / "lenet" / "deploy.prototxt"
    assert name == "LeNet"


def test_installed_wheel_finds_the_kernels(python: Path, tmp_path: Path) -> None:
    script = ("from barista.resources import find\n"
              "print(*sorted(path.name for path in find('opencl_kernels').rglob('*.cl')))\n")
    kernels = run(python, "-c", script, cwd=tmp_path).split()
    assert kernels == sorted(path.name for path in (CHECKOUT / "opencl_kernels").rglob("*.cl"))


def test_checkout_finds_its_own_folders() -> None:
    assert find("prototxt", "lenet", "solver.prototxt") == CHECKOUT / "prototxt" / "lenet" / "solver.prototxt"


def test_unknown_folder_is_refused() -> None:
    with pytest.raises(DataError, match=r"no folder 'prototx' ships .* did you mean 'prototxt'\?"):
        find("prototx")


def test_unknown_network_is_refused() -> None:
    with pytest.raises(DataError, match=r"holds no 'lenett'; did you mean 'lenet'"):
        find("prototxt", "lenett", "solver.prototxt")


def test_foreign_folder_beside_an_installed_package_is_not_taken(tmp_path: Path) -> None:
    package = tmp_path / "barista"
    package.mkdir()
    (tmp_path / "prototxt").mkdir()
    for name in ("__init__.py", "errors.py", "resources.py"):
        source = CHECKOUT / "barista" / name
        (package / name).write_text(source.read_text(encoding="utf-8") if name != "__init__.py" else "",
                                    encoding="utf-8")
    script = ("from barista import resources\n"
              "try:\n    print(resources.find('prototxt'))\n"
              "except resources.DataError as error:\n    print(error)\n")
    assert "the installation is incomplete" in run(sys.executable, "-c", script, cwd=tmp_path)
