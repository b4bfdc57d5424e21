"""What a user may rely on: the package's names, and the exit code of every error."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import a2n_video
from a2n_video import errors
from a2n_video.errors import A2NVideoError, exit_code


def test_public_names() -> None:
    assert a2n_video.__all__ == sorted(a2n_video.__all__)
    assert set(a2n_video.__all__) == {
        "A2N",
        "A2NConfig",
        "EncodeOptions",
        "JobOptions",
        "UpscaleResult",
        "Upscaler",
        "VideoInfo",
        "VideoReader",
        "VideoWriter",
        "available_models",
        "errors",
        "load_model",
        "probe",
        "upscale_frames",
        "upscale_video",
    }
    for name in a2n_video.__all__:
        assert getattr(a2n_video, name) is not None
    with pytest.raises(AttributeError):
        _ = a2n_video.nothing_of_that_name


def test_public_names_have_a_contract() -> None:
    for name in a2n_video.__all__:
        assert inspect.getdoc(getattr(a2n_video, name)), name


@pytest.mark.parametrize(
    ("name", "code", "builtin"),
    [
        ("A2NVideoError", 1, Exception),
        ("OptionError", 2, ValueError),
        ("MissingDependencyError", 2, ImportError),
        ("UnknownModelError", 2, ValueError),
        ("InputError", 3, Exception),
        ("DecodeError", 3, ValueError),
        ("UnsupportedFormatError", 3, ValueError),
        ("IncompleteSourceError", 4, Exception),
        ("OutputError", 5, OSError),
        ("EncodeError", 5, OSError),
        ("OutputExistsError", 5, FileExistsError),
        ("JobConflictError", 5, OSError),
        ("ModelError", 6, Exception),
        ("WeightsError", 6, ValueError),
        ("DeviceError", 6, RuntimeError),
        ("VerificationError", 7, Exception),
    ],
)
def test_exit_codes(name: str, code: int, builtin: type[Exception]) -> None:
    error = getattr(errors, name)("what, where, what to do")
    assert exit_code(error) == code
    assert isinstance(error, A2NVideoError)
    assert isinstance(error, builtin)
    assert f"{name} " in (errors.__doc__ or "") or f"{name}  " in (errors.__doc__ or "")


def test_every_error_has_a_code_in_the_drawn_tree() -> None:
    defined = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, A2NVideoError)}
    drawn = {
        line.replace("|", " ").replace("`", " ").replace("--", " ").split()[0]
        for line in (errors.__doc__ or "").splitlines()
        if "Error" in line
    }
    assert defined == drawn
    assert exit_code(ZeroDivisionError()) == 1
    assert exit_code(KeyboardInterrupt()) == 130


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = "import sys, a2n_video.cli, a2n_video.upscaler, a2n_video.job.run; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
