"""The charts of the report, drawn by matplotlib as inline SVG with the page's font and colors.

Every function returns a complete <svg> element, or "" if there is nothing to draw.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, cast

from markupsafe import escape

from journeyman.foreign import named, plain
from journeyman.manifests import RoleSummary, ServedFile, Speed, ValidationPoint
from journeyman.records import BASE, FEW_SHOT, TEACHER, TUNED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Placeholder colors, replaced by the page's own, which differ between light and dark mode.
_INK, _LINE, _LIMIT = "#010203", "#040506", "#b3261e"
_OF_ARM = {TEACHER: "#4269d0", BASE: "#7d828b", FEW_SHOT: "#b07d2b", TUNED: "#1a7f5b"}
_FURTHER = ("#9c4fb8", "#c2486b", "#2b8a9e", "#7a8a2b")
_WIDTH_IN, _FONT_PT, _LONGEST_LABEL = 6.0, 9, 32
_P = ParamSpec("_P")
_WON, _LOST = "#1a7f5a", "#b3261f"
_OF_PAGE = {
    _INK: "var(--ink)", _LINE: "var(--line)", _LIMIT: "var(--bad)", _WON: "var(--good)", _LOST: "var(--bad)",
    **{color: f"var(--{arm})" for arm, color in _OF_ARM.items()},
}  # fmt: skip


def color_of(arm: str, arms: Sequence[str]) -> str:
    """The arm's own color; other arms get the next one of a fixed sequence."""
    further = [one for one in arms if one not in _OF_ARM]
    return _OF_ARM.get(arm) or _FURTHER[further.index(arm) % len(_FURTHER)]


def _styled(draw: Callable[_P, str]) -> Callable[_P, str]:
    """Draws in the report's style. matplotlib is imported here, so that other commands don't load it."""

    @wraps(draw)
    def styled(*args: _P.args, **kwargs: _P.kwargs) -> str:
        import matplotlib as mpl

        style = {
            "font.size": _FONT_PT, "svg.fonttype": "none", "svg.hashsalt": draw.__name__, "text.color": _INK,
            "axes.labelcolor": _INK, "axes.edgecolor": _LINE, "xtick.color": _INK, "ytick.color": _INK,
            "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "grid.linewidth": 0.6,
            "xtick.major.size": 0, "ytick.major.size": 0, "text.parse_math": False,
        }  # fmt: skip
        with mpl.rc_context(cast(Any, style)), warnings.catch_warnings():
            # The page's font draws the text, so it does not matter if matplotlib's font lacks a character.
            warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
            return draw(*args, **kwargs)

    return styled


@_styled
def success_chart(roles: Mapping[str, RoleSummary], threshold: float) -> str:
    """A line for each role and arm: a dot at the rate, a bar for its interval; the threshold is dashed."""
    arms = _arms(roles)
    gap = 0.8
    height = 0.19 * (len(arms) + gap) * len(roles) + 0.5
    figure, axes = _figure(height, "Success by role, with intervals")
    ticks = []
    for index, (role, summary) in enumerate(roles.items()):
        top = index * (len(arms) + gap)
        ticks.append((top + (len(arms) - 1) / 2, role))
        for place, arm in enumerate(arms):
            rate, color = summary.arms[arm].success, color_of(arm, arms)
            if rate is None:
                axes.text(0.01, top + place, f"{_label(arm)}: not known", va="center", color=_INK, alpha=0.6)
                continue
            at, ends = [top + place] * 2, [rate.low, rate.high]
            axes.plot(ends, at, color=color, lw=5, alpha=0.35, solid_capstyle="round", clip_on=False)
            axes.plot(rate.passed / rate.n, top + place, "o", color=color, ms=6, clip_on=False)
            axes.text(1.02, top + place, f"{rate.passed}/{rate.n} {_label(arm)}", va="center", color=color)
    axes.axvline(threshold, color=_LIMIT, ls="--", lw=1)
    axes.set(xlim=(0, 1), ylim=(len(roles) * (len(arms) + gap) - 1.2, -0.9))
    axes.set_yticks([at for at, _ in ticks], [_label(role) for _, role in ticks])
    axes.tick_params(axis="y", pad=8)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.grid(axis="x", color=_LINE)
    return _svg(figure)


@_styled
def pairs_chart(roles: Mapping[str, RoleSummary], ships: str) -> str:
    """Rows won and lost against each other arm, by role, as shares of the rows scored for both."""
    bars = [
        (f"{_label(role)} against {_label(arm)}", pair)
        for role, summary in roles.items()
        for arm, pair in summary.versus[ships].items()
        if pair.wins + pair.losses + pair.ties
    ]
    if not bars:
        return ""
    figure, axes = _figure(0.24 * len(bars) + 0.6, f"Rows that {_label(ships)} won and lost against the other arms")
    for place, (_, pair) in enumerate(bars):
        n = pair.wins + pair.losses + pair.ties
        axes.barh(place, pair.wins / n, color=_WON, height=0.62)
        axes.barh(place, -pair.losses / n, color=_LOST, height=0.62)
        axes.text(pair.wins / n + 0.015, place, f"{pair.wins} won" if pair.wins else "", va="center", color=_INK)
        lost = f"{pair.losses} lost" if pair.losses else ""
        axes.text(-pair.losses / n - 0.015, place, lost, va="center", ha="right", color=_INK)
    axes.set(xlim=(-1.25, 1.25), ylim=(len(bars) - 0.5, -0.6))
    axes.axvline(0, color=_INK, lw=0.8)
    axes.set_yticks(range(len(bars)), [name for name, _ in bars])
    axes.set_xticks([-1, -0.5, 0, 0.5, 1], ["100 %", "50 %", "0", "50 %", "100 %"])
    axes.grid(axis="x", color=_LINE)
    return _svg(figure)


@_styled
def latency_chart(speeds: Mapping[str, tuple[Speed | None, Speed | None]], limit_s: float) -> str:
    """For each arm, one at a time and under load: the share of answers that were finished after a given time."""
    arms = [arm for arm, both in speeds.items() if any(both)]
    if not arms:
        return ""
    figure, axes = _figure(2.9, "Share of answers finished, by seconds")
    latest = 0.0
    for arm in arms:
        for speed, style in zip(speeds[arm], ("-", ":"), strict=True):
            if speed is None:
                continue
            times = [0.0, *speed.latencies_s]
            shares = [place / len(speed.latencies_s) for place in range(len(times))]
            how = "as logged" if speed.load is None else "alone" if speed.load == 1 else f"{speed.load} at a time"
            label = f"{_label(arm)}, {how}"
            axes.step(times, shares, where="post", ls=style, color=color_of(arm, arms), lw=1.8, label=label)
            latest = max(latest, times[-1])
    if limit_s < 2.5 * latest:
        axes.axvline(limit_s, color=_LIMIT, ls="--", lw=1)
        latest = max(latest, limit_s)
    axes.set(xlim=(0, latest * 1.04), ylim=(0, 1.02), xlabel="seconds")
    axes.set_yticks([0, 0.5, 0.95], ["0 %", "50 %", "95 %"])
    axes.grid(color=_LINE)
    axes.legend(frameon=False, labelcolor=_INK, loc="upper left", bbox_to_anchor=(-0.02, -0.17), ncols=3)
    return _svg(figure)


@_styled
def memory_chart(files: Mapping[str, ServedFile], training_gb: float | None, limit_gb: float) -> str:
    """Peak memory of serving each file that may ship, along with the file's size; and of training."""
    bars = [(f"serving {_label(arm)}", one.peak_memory_gb, one.size_gb) for arm, one in files.items()]
    bars.append(("training", training_gb, 0.0))
    known = [(name, peak, size) for name, peak, size in bars if peak is not None]
    if not known:
        return ""
    figure, axes = _figure(0.32 * len(known) + 0.6, "Peak memory of serving and training, in GB")
    most = max(peak for _, peak, _ in known)
    for place, (_, peak, size) in enumerate(known):
        axes.barh(place, peak, color=_OF_ARM[TUNED], alpha=0.45, height=0.6)
        axes.barh(place, size, color=_OF_ARM[TUNED], height=0.6)
        axes.text(peak + most * 0.015, place, f"{peak:.2f} GB", va="center", color=_INK)
    if limit_gb < 2.5 * most:
        axes.axvline(limit_gb, color=_LIMIT, ls="--", lw=1)
        most = max(most, limit_gb)
    axes.set(xlim=(0, most * 1.18), ylim=(len(known) - 0.5, -0.6))
    axes.set_yticks(range(len(known)), [name for name, _, _ in known])
    axes.set_xlabel("GB; the darker part is the file itself, dashed: the limit of serving")
    axes.grid(axis="x", color=_LINE)
    return _svg(figure)


@_styled
def loss_chart(trained: Sequence[tuple[int, float]], validations: Sequence[ValidationPoint]) -> str:
    """The training loss of each step, and the validation losses."""
    if len(trained) < 2 and len(validations) < 2:
        return ""
    figure, axes = _figure(2.6, "Loss of training and validation over steps")
    if trained:
        axes.plot(*zip(*trained, strict=True), color=_OF_ARM[BASE], lw=1, label="training")
    if validations:
        steps, losses = [point.step for point in validations], [point.loss for point in validations]
        axes.plot(steps, losses, "o-", color=_OF_ARM[TUNED], lw=2, label="validation")
        for step, loss in zip(steps, losses, strict=True) if len(steps) <= 8 else ():
            axes.annotate(f"{loss:.3f}", (step, loss), (5, 6), textcoords="offset points", color=_INK)
    axes.set_ylim(0)
    axes.set(xlabel="step", ylabel="nats per token")
    axes.grid(color=_LINE)
    axes.legend(frameon=False, labelcolor=_INK)
    return _svg(figure)


def _label(name: str) -> str:
    """A name, shortened to fit the axes. A leading _, which would hide it from the legend, is quoted."""
    return plain(f'"{name}"' if name.startswith("_") else named(name), _LONGEST_LABEL)


def _arms(roles: Mapping[str, RoleSummary]) -> list[str]:
    return list(next(iter(roles.values())).arms) if roles else []


def _figure(height_in: float, title: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_IN, height_in), label=title)
    return figure, figure.add_subplot()


def _svg(figure: Figure) -> str:
    """The <svg> element with the page's colors and font, and a title for screen readers."""
    title, made = str(figure.get_label()), io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(made, format="svg", transparent=True, bbox_inches="tight", pad_inches=0.03, metadata=nothing)
    text = made.getvalue()
    head, body = re.search(r"<svg[^>]*>", text), text
    assert head is not None
    box = re.search(r'viewBox="[^"]*"', head[0])
    assert box is not None
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body[head.end() :], flags=re.DOTALL)
    body = re.sub(r"font-family: [^;\"]*;?", "", body).replace("xlink:href", "href")
    for color, of_page in _OF_PAGE.items():
        body = body.replace(color, of_page)
    return f'<svg class="chart" role="img" aria-label="{escape(title)}" {box[0]}><title>{escape(title)}</title>{body}'
