"""Samples of one figure, the limit they stand beside, and what was promised."""

import statistics

UNITS = {"ms": 1e6, "us": 1e3}  # ns in one
GIB = 1 << 30


class Samples:
    def __init__(self, unit):
        self.unit, self.values = unit, []

    def add_ns(self, ns, amount=GIB):
        """A time in ns: kept in the unit, or as the speed at which `amount` bytes were moved."""
        speed = self.unit == "GiB/s"
        self.values.append(amount / GIB / (ns / 1e9) if speed else ns / UNITS[self.unit])

    @property
    def median(self):
        return statistics.median(self.values)

    def text(self):
        return f"{number(self.median)} {self.unit}"

    def range(self):
        return f"{number(min(self.values))}-{number(max(self.values))}"

    def json(self):
        return {"unit": self.unit, "median": self.median, "min": min(self.values),
                "max": max(self.values), "samples": self.values}


class Goal:
    """at_most(1, "ms"): of the figure itself; at_most(4) and at_least(0.6): of its ratio to the
    limit."""

    def __init__(self, upper, bound, unit):
        self.upper, self.bound, self.unit = upper, bound, unit

    def text(self, limit):
        sign = "≤" if self.upper else "≥"
        if self.unit:
            return f"{sign} {number(self.bound)} {self.unit}"
        return f"{sign} {ratio_text(self.bound, limit)}"

    def met(self, figure):
        value = figure.samples.median if self.unit else figure.ratio
        return value <= self.bound if self.upper else value >= self.bound


def at_most(bound, unit=None):
    return Goal(True, bound, unit)


def at_least(bound):
    return Goal(False, bound, None)


class Figure:
    def __init__(self, name, unit, limit=None, goal=None):
        self.name, self.limit, self.goal = name, limit, goal
        self.samples = Samples(unit)

    @property
    def ratio(self):
        """To its limit: how many times as long, or what part of the speed."""
        return self.samples.median / self.limit.samples.median if self.limit else None

    def json(self):
        return {"name": self.name, **self.samples.json(),
                "limit": self.limit.name if self.limit else None, "ratio": self.ratio,
                "goal": self.goal.text(self.limit) if self.goal else None,
                "met": self.goal.met(self) if self.goal else None}


class Limit:
    def __init__(self, name, unit):
        self.name, self.samples = name, Samples(unit)

    def json(self):
        return {"name": self.name, **self.samples.json()}


def number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio_text(ratio, limit):
    """Times are compared by how many times as long, speeds by the part that is reached."""
    return f"{ratio * 100:.0f} %" if limit.samples.unit.endswith("/s") else f"{number(ratio)} x"


def table(works):
    """Lines of text, one per figure, limits among them."""
    notes = {}  # what stands below a work, by the number of its next row
    rows = [("work", "median", "min-max", "ratio", "of", "goal", "")]
    for work in works:
        for figure in work.figures:
            if not figure.samples.values:
                continue
            limit, goal = figure.limit, figure.goal
            rows.append((f"{work.title}: {figure.name}", figure.samples.text(),
                         figure.samples.range(), ratio_text(figure.ratio, limit) if limit else "",
                         limit.name if limit else "", goal.text(limit) if goal else "",
                         ("met" if goal.met(figure) else "MISSED") if goal else ""))
        for limit in work.limits:
            if limit.samples.values:
                rows.append((f"  limit: {limit.name}", limit.samples.text(),
                             limit.samples.range(), "", "", "", ""))
        if work.phases:
            notes[len(rows)] = "    of which: " + ", ".join(
                f"{name} {x.text()}" for name, x in work.phases.items())
        if work.busy > 0.1:
            notes[len(rows)] = (notes.get(len(rows), "   ") +
                                f" (others used {work.busy:.0%} of the machine)")
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    right = (1, 2, 3)
    lines = []
    for n, row in enumerate(rows + [()]):
        lines += [notes[n]] if n in notes else []
        lines.append("  ".join(cell.rjust(width) if i in right else cell.ljust(width)
                               for i, (cell, width) in enumerate(zip(row, widths))).rstrip())
    return lines[:-1]
