"""Inline SVG: success of each arm with its interval, role by role, and the validation loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from journeyman.manifests import RoleSummary, ValidationPoint

_LEFT, _WIDTH, _LINE = 110, 420, 16
ARM_COLORS = {"teacher": "#4269d0", "base": "#8a8f98", "few-shot": "#b07d2b", "tuned": "#1a7f5a"}


def success_chart(roles: Mapping[str, RoleSummary], threshold: float) -> str:
    """One line a role and arm: a dot at the rate, a bar over its interval; the threshold is the dashed line."""
    arms = [arm for arm in ARM_COLORS if any(arm in summary.arms for summary in roles.values())]
    row = _LINE * len(arms) + 14
    height = row * len(roles) + 46
    parts = [_open(_LEFT + _WIDTH + 110, height, f"Success by role of {', '.join(arms)}, with intervals")]
    for tick in range(0, 101, 25):
        x = _LEFT + _WIDTH * tick / 100
        parts.append(f'<line x1="{x}" y1="10" x2="{x}" y2="{height - 36}" class="grid"/>')
        parts.append(f'<text x="{x}" y="{height - 20}" text-anchor="middle">{tick} %</text>')
    x = _LEFT + _WIDTH * threshold
    parts.append(f'<line x1="{x}" y1="10" x2="{x}" y2="{height - 36}" class="threshold"/>')
    for index, (role, summary) in enumerate(roles.items()):
        y = 14 + row * index
        middle = y + 14 + _LINE * (len(arms) - 1) // 2
        parts.append(f'<text x="{_LEFT - 10}" y="{middle}" text-anchor="end" class="role">{escape(role)}</text>')
        parts += [_arm_line(summary, arm, y + 10 + _LINE * place) for place, arm in enumerate(arms)]
    return "".join([*parts, "</svg>"])


def _arm_line(summary: RoleSummary, arm: str, y: int) -> str:
    rate = summary.arms[arm].success if arm in summary.arms else None
    if rate is None:
        return f'<text x="{_LEFT + 4}" y="{y + 4}" class="faint">{arm}: no test row</text>'
    low, high, at = (_LEFT + _WIDTH * value for value in (rate.low, rate.high, rate.passed / rate.n))
    color = ARM_COLORS[arm]
    return (
        f'<line x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" stroke="{color}" stroke-width="5" '
        f'stroke-opacity=".35" stroke-linecap="round"/><circle cx="{at:.1f}" cy="{y}" r="5" fill="{color}"/>'
        f'<text x="{_LEFT + _WIDTH + 14}" y="{y + 4}" fill="{color}">{rate.passed}/{rate.n} {arm}</text>'
    )


def loss_chart(points: Sequence[ValidationPoint]) -> str:
    """Validation loss over steps; empty where there are fewer than two points."""
    if len(points) < 2:
        return ""
    top, last = max(p.loss for p in points), max(p.step for p in points) or 1
    parts = [_open(_LEFT + _WIDTH + 110, 180, "Validation loss over steps")]
    places = [(_LEFT + _WIDTH * p.step / last, 150 - 130 * p.loss / top) for p in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts.append(f'<line x1="{_LEFT}" y1="150" x2="{_LEFT + _WIDTH}" y2="150" class="grid"/>')
    parts.append(f'<polyline points="{line}" fill="none" stroke="{ARM_COLORS["tuned"]}" stroke-width="2"/>')
    for (x, y), point in zip(places, points, strict=True):
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{ARM_COLORS["tuned"]}"/>')
        parts.append(f'<text x="{x + 6:.1f}" y="{y - 6:.1f}">{point.loss:.3f}</text>')
        parts.append(f'<text x="{x:.1f}" y="168" text-anchor="middle">{point.step}</text>')
    return "".join([*parts, "</svg>"])


def _open(width: int, height: int, title: str) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{title}"><title>{title}</title>'
