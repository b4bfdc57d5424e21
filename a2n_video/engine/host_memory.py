"""How much of the machine's memory this process may still take."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

_MEMINFO: Final = Path("/proc/meminfo")
_MEMBERSHIP: Final = Path("/proc/self/cgroup")
_CGROUPS: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class _Accounts:
    """Where a version of control groups keeps its books: under the mount point, and the names of its files."""

    root: str
    limit: str
    used: str
    cache: str


# Linux, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst
_V2: Final = _Accounts(".", "memory.max", "memory.current", "inactive_file")
_V1: Final = _Accounts("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def free_host_bytes() -> int:
    """Memory that this process may still take: what the system has available, or less where a control group around it leaves less."""
    if not _MEMINFO.exists():
        return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) // 2
    available = _table(_MEMINFO).get("MemAvailable:", 0) * 1024
    return min([available, *_left_in_groups()])


def _left_in_groups() -> Iterator[int]:
    """What the limit of each group around this process leaves, in bytes.

    A group is charged for the files it has read; of that the kernel gives back what was not used lately before anything else.
    """
    for accounts, group in _groups():
        limit, used = _number(group / accounts.limit), _number(group / accounts.used)
        if limit is not None and used is not None:
            yield max(0, limit - used + _table(group / "memory.stat").get(accounts.cache, 0))


def _groups() -> Iterator[tuple[_Accounts, Path]]:
    """This process's group and those it lies in. A container may see its own group only as the root."""
    for line in _lines(_MEMBERSHIP):
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        accounts = _V1 if controllers else _V2
        own = PurePosixPath(path.lstrip("/"))
        for part in (own, *own.parents):
            yield accounts, _CGROUPS / accounts.root / part


def _table(path: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    rows = [line.split() for line in _lines(path)]
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def _number(path: Path) -> int | None:
    """The number in a file, or None where there is none or it says "max"."""
    words = _lines(path)
    return int(words[0]) if words and words[0].isdecimal() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
