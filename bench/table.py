"""Makes figures of rounds, and tables of figures."""

import statistics

QUIRE = "quire"  # the candidate that the others are set against


def figures(rounds):
    """rounds: candidate -> one measurement a round (None where it failed).
    Returns candidate -> its figures; those without a good round are left out."""
    found = {}
    for name, measured in rounds.items():
        good = [m for m in measured if m]
        if not good:
            continue
        each = [m["seconds"] * 1000 / m["pages"] for m in good]
        ratios = [
            (m["seconds"] / m["pages"]) / (q["seconds"] / q["pages"])
            for m, q in zip(measured, rounds.get(QUIRE, [])) if m and q
        ]
        ticks = [m["loop_ms"] for m in good if m.get("loop_ms")]
        found[name] = {
            "engine": good[-1].get("engine", ""),
            "precision": good[-1].get("precision", ""),
            "rounds": len(good),
            "pages": good[-1]["pages"] // good[-1].get("passes", 1),
            "failed_pages": good[-1]["failed"],
            "regions": good[-1].get("regions", 0),
            "ms_per_page": statistics.median(each),
            "ms_per_page_min": min(each),
            "ms_per_page_max": max(each),
            "ratio": statistics.median(ratios) if ratios else None,
            "cpu_ms_per_page": statistics.median(m["cpu"] * 1000 / m["pages"] for m in good),
            "loop_ms": {k: statistics.median(t[k] for t in ticks) for k in ("p50", "p99")}
            | {"max": max(t["max"] for t in ticks)} if ticks else None,
            "page_ms": quartiles([ms for m in good for ms in m.get("each_ms", [])]),
            "others": max(m["others"] / m["seconds"] for m in good),
        }
    return found


def quartiles(each):
    """Of what single pages took, and what one in twenty took more than."""
    if len(each) < 2:
        return None
    cuts = statistics.quantiles(each, n=20)
    return {"p25": cuts[4], "p50": cuts[9], "p75": cuts[14], "p95": cuts[18]}


def number(value):
    """Three digits, as far as they are worth something."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def markdown(header, rows):
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])


def ratio(figure):
    return "–" if figure["ratio"] is None else f"{figure['ratio']:.2f}"


def spread(figure):
    return f"{number(figure['ms_per_page_min'])} to {number(figure['ms_per_page_max'])}"


def pipeline(found):
    rows = []
    for name, f in found.items():
        loop = " / ".join(number(f["loop_ms"][k]) for k in ("p50", "p99", "max")) if f["loop_ms"] else "–"
        rows.append([
            name, f"{f['engine']}, {f['precision']}", number(f["ms_per_page"]), spread(f), ratio(f),
            number(f["cpu_ms_per_page"]), loop, str(f["regions"]),
        ])
    return markdown(
        ["pages to regions", "engine, precision", "ms a page", "spread", "÷ quire", "CPU-ms a page",
         "loop late, ms: p50 / p99 / max", "regions"], rows)


def rendering(found):
    rows = []
    for name, f in found.items():
        pages = " / ".join(number(v) for v in f["page_ms"].values()) if f["page_ms"] else "–"
        rows.append([name, f["engine"], number(f["ms_per_page"]), spread(f), ratio(f), number(f["cpu_ms_per_page"]), pages])
    return markdown(["drawing alone, one process", "engine", "ms a page", "spread", "÷ quire", "CPU-ms a page",
                     "single pages, ms: quarter / half / three quarters / 95 % below"], rows)
