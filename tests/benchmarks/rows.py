"""How the benchmarks show what they found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence


def show(rows: Sequence[Mapping[str, object]], *, as_json: bool) -> None:
    """A line for each row, or all of them as JSON."""
    if as_json:
        print(json.dumps({"rows": rows}))
        return
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
