"""Build hook: compiles what is in C, the VapourSynth filter and the network for processors, or says why it is missing.

The install never fails for want of a compiler: the rest of the package does not need them. A2N_REQUIRE_VS_PLUGIN=1 makes a missing
filter an error and A2N_REQUIRE_NATIVE=1 a missing network, for continuous integration and releases.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

PLUGIN_DIR = "vapoursynth/plugins/a2n"
LIBRARY = "liba2n"
MANIFEST = f"[VapourSynth Manifest V1]\n{LIBRARY}\n"
NATIVE_DIR = "a2n_video/engine/native"
NATIVE_LIBRARY = "liba2n_native"
SUFFIXES = {"linux": ".so", "darwin": ".dylib"}
FLAGS = ("-std=gnu11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra")
LIBRARIES = {"linux": ("-ldl", "-lpthread"), "darwin": ()}
NATIVE_FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-Wall", "-Wextra", "-Wno-psabi")
# Floats in a vector, and what has the compiler use such vectors; the library picks one when it is loaded.
WIDTHS: dict[str, dict[int, tuple[str, ...]]] = {
    "x86_64": {4: (), 8: ("-mavx2", "-mfma"), 16: ("-mavx512f", "-mprefer-vector-width=512")},
}
HOW_TO_GET_IT = (
    "The VapourSynth filter core.a2n was not built: {reason}\n"
    "Everything else of a2n-video works. To get the filter, install a C compiler (Debian and Ubuntu: apt install gcc libc6-dev;\n"
    "Fedora: dnf install gcc; macOS: xcode-select --install), then: pip install --force-reinstall --no-deps a2n-video\n"
)
NO_NATIVE = (
    "The network's own code for processors was not built: {reason}\n"
    "OpenVINO or torch takes its place, which is slower: up to three times. To get it, install a C compiler as for the filter.\n"
)


class NotBuilt(Exception):
    """Why a part is missing, as a sentence."""


class PluginBuildHook(BuildHookInterface[Any]):
    """Adds vapoursynth/plugins/a2n/ with the filter and its manifest, or with MISSING.txt, and the network's library."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="a2n-build-", ignore_cleanup_errors=True)  # gone where the build fails too
        self._folder = Path(self._scratch.name)
        editable = version == "editable"
        # Each kind of build reads its own key; the files go to the plugin folder of the environment, editable or not.
        included = build_data["force_include_editable" if editable else "force_include"]
        plugin = self._built(self._filter, "A2N_REQUIRE_VS_PLUGIN", HOW_TO_GET_IT) or [self._folder / "MISSING.txt"]
        native = self._built(self._native, "A2N_REQUIRE_NATIVE", NO_NATIVE)
        included.update({str(path): f"{PLUGIN_DIR}/{path.name}" for path in plugin})
        if native and editable:  # beside its sources: there the package is imported from
            shutil.copy(native[0], Path(self.root) / NATIVE_DIR)
        else:
            included.update({str(path): f"{NATIVE_DIR}/{path.name}" for path in native})
        if native or plugin[0].suffix in SUFFIXES.values():
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{next(platform_tags())}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        self._scratch.cleanup()

    def _built(self, build: Callable[[], list[Path]], required: str, sentence: str) -> list[Path]:
        """What `build` makes; nothing, and a note why, where it cannot and need not."""
        try:
            return build()
        except NotBuilt as reason:
            if os.environ.get(required, "0") != "0":
                raise
            text = sentence.format(reason=reason)
            self.app.display_warning(text)
            if sentence is HOW_TO_GET_IT:
                (self._folder / "MISSING.txt").write_text(text)
            return []

    def _filter(self) -> list[Path]:
        library = self._folder / (LIBRARY + suffix())
        sources = sorted(str(path) for path in (Path(self.root) / "vs_plugin").glob("*.c"))
        version = f'-DA2N_VERSION="{self.metadata.version}"'
        compile_c([*FLAGS, version, f"-I{headers()}", *sources, "-o", str(library), *LIBRARIES[sys.platform]])
        manifest = self._folder / "manifest.vs"
        manifest.write_text(MANIFEST)
        return [library, manifest]

    def _native(self) -> list[Path]:
        folder, library = Path(self.root) / NATIVE_DIR, self._folder / (NATIVE_LIBRARY + suffix())
        parts = []
        for lanes, flags in WIDTHS.get(platform.machine(), {4: ()}).items():
            parts.append(str(self._folder / f"network_{lanes}.o"))
            compile_c([*NATIVE_FLAGS, *flags, f"-DLANES={lanes}", "-c", str(folder / "network.c"), "-o", parts[-1]])
        compile_c(
            [*NATIVE_FLAGS, "-shared", str(folder / "pool.c"), str(folder / "entry.c"), *parts, "-o", str(library), "-lpthread", "-lm"]
        )
        return [library]


def suffix() -> str:
    if sys.platform not in SUFFIXES:
        raise NotBuilt(f"it knows Linux and macOS, not {sys.platform}")
    return SUFFIXES[sys.platform]


def compile_c(arguments: list[str]) -> None:
    """NotBuilt, with what the compiler said, where it fails."""
    command = [*compiler(), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotBuilt(f"the compiler failed ({shlex.join(command[:2])} ...):\n{done.stderr.strip()}")


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
