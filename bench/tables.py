"""Tables of figures and targets, printed by the benchmarks."""

import sys
from dataclasses import dataclass, field


@dataclass
class Table:
    """Measured figures with their targets."""

    missed: int = 0
    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    def add(self, name: str, figure: str, *, target: str = "", met: bool | None = None) -> None:
        verdict = {True: "met", False: "MISSED", None: ""}[met]
        self.missed += met is False
        self.rows.append((name, target, figure, verdict))
        print(f"  {name}: {figure} {verdict}", file=sys.stderr, flush=True)

    def show(self) -> None:
        head = ("", "target", "figure", "verdict")
        widths = [max(map(len, column)) for column in zip(head, *self.rows, strict=True)]
        for row in (head, *self.rows):
            cells = zip(row, widths, strict=True)
            print("  ".join(cell.ljust(width) for cell, width in cells).rstrip())


def p(share: float, figures: list[float]) -> float:
    """Return the `share` quantile of the figures."""
    return sorted(figures)[min(int(share * len(figures)), len(figures) - 1)]


def spread(figures: list[float]) -> str:
    return f"p50 {p(0.5, figures):.1f}, p95 {p(0.95, figures):.1f} ms"
