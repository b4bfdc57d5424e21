"""Build hook: compiles the VapourSynth filter into the wheel, or says plainly why it is not in it.

The install never fails for want of a compiler: the rest of the package does not need the filter. A2N_REQUIRE_VS_PLUGIN=1
makes it an error, for continuous integration and releases.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

PLUGIN_DIR = "vapoursynth/plugins/a2n"
LIBRARY = "liba2n"
MANIFEST = f"[VapourSynth Manifest V1]\n{LIBRARY}\n"
SUFFIXES = {"linux": ".so", "darwin": ".dylib"}
FLAGS = ("-std=gnu11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra")
LIBRARIES = {"linux": ("-ldl", "-lpthread"), "darwin": ()}
HOW_TO_GET_IT = (
    "The VapourSynth filter core.a2n was not built: {reason}\n"
    "Everything else of a2n-video works. To get the filter, install a C compiler (Debian and Ubuntu: apt install gcc libc6-dev;\n"
    "Fedora: dnf install gcc; macOS: xcode-select --install), then: pip install --force-reinstall --no-deps a2n-video\n"
)


class NotBuilt(Exception):
    """Why there is no filter, as a sentence."""


class PluginBuildHook(BuildHookInterface[Any]):
    """Adds vapoursynth/plugins/a2n/ with the filter and its manifest, or with MISSING.txt."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="a2n-vs-"))
        try:
            files = self._filter()
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{next(platform_tags())}"
        except NotBuilt as reason:
            if os.environ.get("A2N_REQUIRE_VS_PLUGIN", "0") != "0":
                raise
            files = [self._note(str(reason))]
        # Each kind of build reads its own key; the files go to the plugin folder of the environment, editable or not.
        key = "force_include_editable" if version == "editable" else "force_include"
        build_data[key].update({str(path): f"{PLUGIN_DIR}/{path.name}" for path in files})

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _filter(self) -> list[Path]:
        if sys.platform not in SUFFIXES:
            raise NotBuilt(f"it knows Linux and macOS, not {sys.platform}")
        library = self._folder / (LIBRARY + SUFFIXES[sys.platform])
        sources = sorted(str(path) for path in (Path(self.root) / "vs_plugin").glob("*.c"))
        version = f'-DA2N_VERSION="{self.metadata.version}"'
        command = [*compiler(), *FLAGS, version, f"-I{headers()}", *sources, "-o", str(library), *LIBRARIES[sys.platform]]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NotBuilt(f"the compiler failed ({shlex.join(command[:2])} ...):\n{done.stderr.strip()}")
        manifest = self._folder / "manifest.vs"
        manifest.write_text(MANIFEST)
        return [library, manifest]

    def _note(self, reason: str) -> Path:
        text = HOW_TO_GET_IT.format(reason=reason)
        self.app.display_warning(text)
        note = self._folder / "MISSING.txt"
        note.write_text(text)
        return note


def compiler() -> list[str]:
    """$CC, else the first C compiler on the PATH."""
    for command in (os.environ.get("CC"), "cc", "gcc", "clang"):
        words = shlex.split(command) if command else []
        if words and shutil.which(words[0]):
            return words
    raise NotBuilt("no C compiler was found (looked for $CC, cc, gcc and clang)")


def headers() -> str:
    """The folder of VapourSynth's headers, from its wheel."""
    try:
        import vapoursynth
    except ImportError as error:
        raise NotBuilt(f"VapourSynth is not there to build against ({error})") from None
    return str(vapoursynth.get_include())
