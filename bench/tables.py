"""Tables of figures and targets, printed by the benchmarks."""

import sys
from dataclasses import dataclass, field


@dataclass
class Table:
    """Measured figures with their targets."""

    missed: int = 0  # targets
    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    def add(self, name: str, figure: str, *, target: str = "", met: bool | None = None) -> None:
        """Add a row, and print it to stderr; `met` is None without a target."""
        verdict = {True: "met", False: "MISSED", None: ""}[met]
        self.missed += met is False
        self.rows.append((name, target, figure, verdict))
        print(f"  {name}: {figure} {verdict}", file=sys.stderr, flush=True)

    def show(self) -> None:
        """Print the table to stdout."""
        header = ("", "target", "figure", "verdict")
        widths = [max(map(len, column)) for column in zip(header, *self.rows, strict=True)]
        for row in (header, *self.rows):
            cells = zip(row, widths, strict=True)
            print("  ".join(cell.ljust(width) for cell, width in cells).rstrip())


def quantile(share: float, figures: list[float]) -> float:
    """Return the value below which `share` of the figures lie: the median for 0.5."""
    return sorted(figures)[min(int(share * len(figures)), len(figures) - 1)]


def format_quantiles(figures: list[float]) -> str:
    """Return median and 95th percentile of milliseconds, as text."""
    return f"p50 {quantile(0.5, figures):.1f}, p95 {quantile(0.95, figures):.1f} ms"
