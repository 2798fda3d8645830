"""How samples are spread: mean, median, and a histogram in text."""

import statistics

CELLS = 12
WIDTH = 40


def summary(values):
    return {"mean": statistics.mean(values), "median": statistics.median(values),
            "min": min(values), "max": max(values), "samples": list(values)}


def histogram(columns, unit):
    """Lines of text. columns: name -> samples; all of them are cut into the same cells, so that
    they can be looked at one below the other."""
    every = [x for values in columns.values() for x in values]
    low, high = min(every), max(every)
    step = (high - low) / CELLS or 1
    lines = []
    for name, values in columns.items():
        counts = [0] * CELLS
        for value in values:
            counts[min(CELLS - 1, int((value - low) / step))] += 1
        lines.append(f"{name}: {len(values)} runs, mean {statistics.mean(values):.2f} {unit}, "
                     f"median {statistics.median(values):.2f} {unit}")
        for i, count in enumerate(counts):
            bar = "#" * -(-count * WIDTH // max(1, len(values)))
            lines.append(f"  {low + i * step:8.2f} -{low + (i + 1) * step:8.2f}  {count:3d} {bar}")
    return lines


def table(rows):
    """rows[0] is the head; the first column is words, the others are figures."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.rjust(width) if i else cell.ljust(width)
                      for i, (cell, width) in enumerate(zip(row, widths))).rstrip()
            for row in rows]
