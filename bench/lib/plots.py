"""Curves as pictures: one SVG per curve, fsnap's lines beside those of its peers, limits dashed.

Colours are those of Okabe and Ito, which everybody can tell apart, and each line has a marker of
its own, so that it does without colour, too."""

import math
import os

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*"
LIMITS = ("--", ":", "-.")


class Missing(RuntimeError):
    pass


def library():
    try:
        import matplotlib
    except ImportError:
        raise Missing("pictures need matplotlib: apt-get install python3-matplotlib") from None
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "font.size": 10, "svg.hashsalt": "fsnap"})
    from matplotlib import pyplot
    return pyplot


def draw(works, directory):
    """Returns the paths of what was written."""
    pyplot = library()
    os.makedirs(directory, exist_ok=True)
    pictures = {}
    for work in works:
        if "curve" in work:
            pictures.setdefault(work["curve"]["title"].split(": ")[-1], []).append(work)
    return [picture(pyplot, title, group, directory) for title, group in pictures.items()]


def picture(pyplot, title, group, directory):
    figure, axes = pyplot.subplots(figsize=(8, 5))
    curve, colour, dashes = group[0]["curve"], 0, 0
    for work in group:
        for series in work["curve"]["series"]:
            if not series["points"] or series["unit"] != "ms":
                continue
            if series["limit"]:
                line(axes, series, series["name"], "#777777", LIMITS[dashes % 3], None)
                dashes += 1
            else:
                name = series["name"] if work["tool"] == "fsnap" else f"{work['tool']}: {series['name']}"
                line(axes, series, name, COLOURS[colour % 7], "-", MARKERS[colour % 7])
                colour += 1
    label(axes, curve, title)
    path = os.path.join(directory, group[0]["name"] + ".svg")
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    pyplot.close(figure)
    return path


def line(axes, series, name, colour, style, marker):
    """The median, and what lay between the smallest and the largest as a band."""
    at = [p["at"] for p in series["points"]]
    axes.plot(at, [p["median"] for p in series["points"]], style, color=colour, marker=marker, label=name)
    axes.fill_between(at, [p["min"] for p in series["points"]], [p["max"] for p in series["points"]],
                      color=colour, alpha=0.15, linewidth=0)


def label(axes, curve, title):
    every = [p for s in curve["series"] if s["unit"] == "ms" for p in s["points"]]
    points = sorted({p["at"] for p in every})
    if points[0] == 0:
        axes.set_xscale("symlog", linthresh=points[1])
        axes.set_xlim(left=-points[1] / 4)
    else:
        axes.set_xscale("log")
    axes.set_xticks(points, [str(p) for p in points])
    axes.set_yscale("log")
    low = math.floor(math.log10(min(p["min"] for p in every)))
    high = math.ceil(math.log10(max(p["max"] for p in every)))
    axes.set_yticks([10.0 ** n for n in range(low, high + 1)], [f"{10.0 ** n:g}" for n in range(low, high + 1)])
    axes.minorticks_off()
    axes.set_xlabel(f"{curve['axis']}, {curve['unit']}" if curve["unit"] else curve["axis"])
    axes.set_ylabel("ms")
    axes.set_title(title)
    axes.grid(True, alpha=0.3)
    axes.legend(fontsize=8)
