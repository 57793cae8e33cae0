"""The table: a line as soon as it is known."""

HEAD = f"{'workload':10} {'backend':12} {'who':18} {'ratio':>7}  {'of':32} figures"


def row(workload, backend, who, figures, baseline):
    """Note a line: the figures, of which `ratio` is that to the baseline, and `base_per_s` the baseline's own."""
    figures = dict(figures)
    ratio = figures.pop("ratio", None)
    base = figures.pop("base_per_s", None)
    if base is not None:
        baseline = f"{baseline} {base:,.0f}/s"
    shown = "  ".join(f"{name}={number(value)}" for name, value in figures.items())
    ratio = "-" if ratio is None else f"{ratio:.3f}"
    print(f"{workload:10} {backend:12} {who:18} {ratio:>7}  {baseline:32} {shown}", flush=True)


def note(text):
    """Say why something is not in the table."""
    print(f"# {text}", flush=True)


def number(value):
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
