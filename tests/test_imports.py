from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from launcher.imports import Imports, read

if TYPE_CHECKING:
    from pathlib import Path


def reading(folder: Path, text: str, **modules: str) -> Imports:
    """What is known of ``text`` as a program in a folder with these modules; ``a__b`` is ``a/b.py``."""
    for name, content in modules.items():
        path = folder.joinpath(*name.split("__")).with_suffix(".py") if not name.endswith("_init") else None
        path = path or folder / name.removesuffix("_init") / "__init__.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    (folder / "program.py").write_text(text)
    return read(folder / "program.py", folder)


@pytest.mark.parametrize(
    "text",
    [
        "import tensorflow",
        "import os, tensorflow as tf",
        "import tensorflow.keras.layers",
        "from tensorflow import keras",
        "from tensorflow.keras.layers import Dense",
        "import keras",
        "from tf_keras import layers",
        "def main():\n    import tensorflow",
        "try:\n    import tensorflow\nexcept ImportError:\n    pass",
        "import one",
        "from one import anything",
        "import package.two",
        "from package import two",
        "from package.two import x",
        "import circle",
        "import whole",
    ],
)
def test_it_imports_tensorflow(tmp_path: Path, text: str) -> None:
    modules = {"one": "import keras", "package_init": "", "package__two": "from .three import x"}
    modules |= {"package__three": "import tensorflow", "circle": "import circle, one", "whole_init": "import keras"}
    assert reading(tmp_path, text, **modules).tensorflow


@pytest.mark.parametrize(
    "text",
    [
        "",
        "print('tensorflow')",
        "import numpy, os",
        "import tensorflow_datasets",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import tensorflow",
        "import typing\nif typing.TYPE_CHECKING:\n    import tensorflow\nelse:\n    import os",
        "from package import other",
        "from .... import far",
        "import circle",
        "import tensorflow\ndef (:",
        "import x" + chr(0),
    ],
)
def test_it_does_not(tmp_path: Path, text: str) -> None:
    modules = {"package_init": "", "package__two": "import tensorflow", "package__other": "", "circle": "import circle"}
    assert reading(tmp_path, text, **modules) == Imports()


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    assert read(tmp_path / "none.py", tmp_path) == Imports()


LEGACY = "os.environ['TF_USE_LEGACY_KERAS'] = '1'"


@pytest.mark.parametrize(
    ("text", "early", "defaults"),
    [
        (f"import os\n{LEGACY}\nimport tensorflow", {"TF_USE_LEGACY_KERAS": "1"}, {}),
        ("from os import environ\nenviron['KERAS_BACKEND'] = 'jax'\nimport keras", {"KERAS_BACKEND": "jax"}, {}),
        ("import os\nos.environ.setdefault('KERAS_BACKEND', 'jax')\nimport keras", {}, {"KERAS_BACKEND": "jax"}),
        ("import os\nos.environ['MINE'] = '1'\nimport keras", {}, {}),
        ("import os\nprint(os.environ.get('KERAS_BACKEND'))\nimport keras", {}, {}),
    ],
)
def test_what_it_sets_first(tmp_path: Path, text: str, early: dict[str, str], defaults: dict[str, str]) -> None:
    assert reading(tmp_path, text) == Imports(True, early, defaults)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (f"import os, keras\n{LEGACY}", "TF_USE_LEGACY_KERAS in program.py:2"),
        (f"import os\nif x: {LEGACY}\nimport keras", "TF_USE_LEGACY_KERAS in program.py:2"),
        ("import os\nos.environ['KERAS_BACKEND'] = b\nimport keras", "KERAS_BACKEND in program.py:2"),
        ("import os\nos.environ.update(KERAS_BACKEND='jax')\nimport keras", "KERAS_BACKEND in program.py:2"),
        ("import os\nos.putenv('KERAS_BACKEND', 'jax')\nimport keras", "KERAS_BACKEND in program.py:2"),
        ("import settings, keras", "KERAS_BACKEND in settings.py:3"),
    ],
)
def test_what_it_may_set_otherwise(tmp_path: Path, text: str, where: str) -> None:
    settings = "import os\n\nos.environ['KERAS_BACKEND'] = 'jax'"
    assert reading(tmp_path, text, settings=settings).elsewhere == where


def test_a_program_of_many_modules_ends(tmp_path: Path) -> None:
    modules = {f"m{number}": f"import m{number + 1}" for number in range(300)}
    assert not reading(tmp_path, "import m0", **modules).tensorflow
