"""Free memory, with control groups of both versions laid out as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from a2n_video.engine import host_memory
from a2n_video.engine.host_memory import free_host_bytes

GIB = 1 << 30


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 16 GiB available and no groups yet: `cgroup` is its membership, `groups` its mount point."""
    (tmp_path / "meminfo").write_text(f"MemTotal: 33554432 kB\nMemAvailable: {16 * GIB // 1024} kB\nHugePages_Total: 0\n")
    (tmp_path / "groups").mkdir()
    for name, path in (("_MEMINFO", "meminfo"), ("_MEMBERSHIP", "cgroup"), ("_CGROUPS", "groups")):
        monkeypatch.setattr(host_memory, name, tmp_path / path)
    return tmp_path


def group(folder: Path, version: int, limit: str, used: int, cache: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current", "") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon {used - cache}\n{names[2]}inactive_file {cache}\n")


def test_it_is_some_of_this_machines() -> None:
    assert 1 << 20 < free_host_bytes() < 1 << 50


def test_without_groups_it_is_what_the_system_has(host: Path) -> None:
    assert free_host_bytes() == 16 * GIB


def test_files_that_were_read_do_not_count_as_taken(host: Path) -> None:
    (host / "cgroup").write_text("0::/\n")
    group(host / "groups", 2, str(8 * GIB), 8 * GIB - 1, 7 * GIB)
    assert free_host_bytes() == 7 * GIB + 1


def test_the_tightest_group_around_the_process_counts(host: Path) -> None:
    (host / "cgroup").write_text("0::/jobs.slice/video.service\n")
    group(host / "groups", 2, "max", GIB, 0)
    group(host / "groups/jobs.slice", 2, str(6 * GIB), 2 * GIB, 0)
    group(host / "groups/jobs.slice/video.service", 2, str(12 * GIB), 2 * GIB, 0)
    assert free_host_bytes() == 4 * GIB


def test_version_one_beside_a_version_two_without_memory(host: Path) -> None:
    (host / "cgroup").write_text("9:name=systemd:/x\n4:memory,hugetlb:/docker/abc\n1:cpu:/\n0::/\n")
    group(host / "groups/memory", 1, str((1 << 63) - 4096), 3 * GIB, 0)
    group(host / "groups/memory/docker/abc", 1, str(4 * GIB), 3 * GIB, GIB)
    assert free_host_bytes() == 2 * GIB


def test_a_container_that_sees_its_group_as_the_root(host: Path) -> None:
    (host / "cgroup").write_text("4:memory:/docker/abc\n")
    group(host / "groups/memory", 1, str(4 * GIB), 3 * GIB, 0)
    assert free_host_bytes() == GIB


def test_more_taken_than_allowed_leaves_nothing(host: Path) -> None:
    (host / "cgroup").write_text("0::/\n")
    group(host / "groups", 2, str(GIB), 2 * GIB, 0)
    assert free_host_bytes() == 0
