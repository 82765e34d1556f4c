"""Loss curves as a small PNG, drawn without a plotting library; what they mean is elsewhere."""

import io
import math
from collections.abc import Iterable, Sequence

from PIL import Image, ImageDraw, ImageFont

from aesearch.studies.dashboard.finished import CurvePoint

WIDTH, HEIGHT = 720, 400
_SCALE = 2  # drawn larger and shrunk: PIL's lines have no smooth edges
_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 16, 44, 46
_VALIDATION, _TRAINING = (11, 98, 164), (222, 143, 5)
_INK, _GRID = (60, 60, 60), (225, 225, 225)
_LOGARITHMIC_FROM = 4.0  # ratio of the largest to the smallest loss

_Point = tuple[float, float]


def draw_curves(curve: Sequence[CurvePoint], title: str) -> bytes:
    """Draw a trial's losses over the epochs, one line per fold, as PNG.

    Parameters
    ----------
    curve : sequence of CurvePoint
        By fold, then epoch; a loss that is not finite leaves a gap.
    """
    losses = [
        loss for point in curve for loss in (point.train, point.validation) if math.isfinite(loss)
    ]
    epochs = [point.epoch for point in curve] or [1]
    low, high = (min(losses), max(losses)) if losses else (0.0, 1.0)
    logarithmic = low > 0.0 and high / low >= _LOGARITHMIC_FROM
    axis = _Axis(min(epochs), max(epochs), low, high, logarithmic=logarithmic)
    sheet = Image.new("RGB", (WIDTH * _SCALE, HEIGHT * _SCALE), "white")
    pen = ImageDraw.Draw(sheet)
    _draw_frame(pen, axis, title)
    for colour, width, values in (
        (_TRAINING, 3, [(p.fold, p.epoch, p.train) for p in curve]),
        (_VALIDATION, 4, [(p.fold, p.epoch, p.validation) for p in curve]),
    ):
        for line in _lines(values):
            points = [axis.at(epoch, loss) for epoch, loss in line]
            if len(points) == 1:
                _dot(pen, points[0], colour)
            else:
                pen.line(points, fill=colour, width=width, joint="curve")
    stream = io.BytesIO()
    sheet.reduce(_SCALE).quantize(64, method=Image.Quantize.FASTOCTREE).save(stream, "PNG")
    return stream.getvalue()


class _Axis:
    """Where an epoch and a loss lie on the sheet."""

    def __init__(
        self, first: int, last: int, low: float, high: float, *, logarithmic: bool
    ) -> None:
        self.logarithmic = logarithmic
        self.first, self.last = first, last
        bottom, top = self._scaled(low), self._scaled(high)
        margin = 0.05 * (top - bottom) or max(abs(top), 1e-9) * 0.05
        self._bottom, self._top = bottom - margin, top + margin

    def _scaled(self, loss: float) -> float:
        return math.log10(loss) if self.logarithmic else loss

    def at(self, epoch: float, loss: float) -> _Point:
        span = max(self.last - self.first, 1)
        across = (epoch - self.first) / span if self.last > self.first else 0.5
        up = (self._scaled(loss) - self._bottom) / (self._top - self._bottom)
        x = _LEFT + across * (WIDTH - _LEFT - _RIGHT)
        y = HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM)
        return x * _SCALE, y * _SCALE

    def loss_ticks(self) -> list[float]:
        if self.logarithmic:
            return _logarithmic_ticks(10**self._bottom, 10**self._top)
        return _round_ticks(self._bottom, self._top)

    def epoch_ticks(self) -> list[float]:
        found = [t for t in _round_ticks(self.first, self.last) if t == int(t)]
        return found or [float(self.first)]


def _round_ticks(low: float, high: float, about: int = 6) -> list[float]:
    if high <= low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _logarithmic_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 5, 7)):
        found = [f * 10.0**d for d in decades for f in factors if low <= f * 10.0**d <= high]
        if len(found) >= 3:
            break
    return found


def _lines(values: Iterable[tuple[int, int, float]]) -> list[list[_Point]]:
    """Cut into one line per fold, and again where a loss is not finite."""
    lines: list[list[_Point]] = []
    before = None
    for fold, epoch, loss in values:
        if not math.isfinite(loss):
            before = None
            continue
        if fold != before:
            lines.append([])
        lines[-1].append((float(epoch), loss))
        before = fold
    return lines


def _draw_frame(pen: ImageDraw.ImageDraw, axis: _Axis, title: str) -> None:
    small, large = _font(13), _font(15)
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    for loss in axis.loss_ticks():
        _, y = axis.at(axis.first, loss)
        pen.line([(_LEFT * _SCALE, y), (right * _SCALE, y)], fill=_GRID, width=_SCALE)
        pen.text(((_LEFT - 6) * _SCALE, y), f"{loss:.3g}", _INK, font=small, anchor="rm")
    for epoch in axis.epoch_ticks():
        x, _ = axis.at(epoch, 1.0)
        pen.text((x, (bottom + 6) * _SCALE), f"{epoch:.0f}", _INK, font=small, anchor="mt")
    pen.line([(_LEFT * _SCALE, _TOP * _SCALE), (_LEFT * _SCALE, bottom * _SCALE)], _INK, _SCALE)
    pen.line([(_LEFT * _SCALE, bottom * _SCALE), (right * _SCALE, bottom * _SCALE)], _INK, _SCALE)
    middle = (_LEFT + right) / 2
    pen.text((middle * _SCALE, (HEIGHT - 8) * _SCALE), "epoch", _INK, font=small, anchor="ms")
    pen.text((_LEFT * _SCALE, 10 * _SCALE), title, _INK, font=large, anchor="lt")
    x = _LEFT
    for colour, words in ((_VALIDATION, "validation, a line per fold"), (_TRAINING, "training")):
        y = 34 * _SCALE
        pen.line([(x * _SCALE, y), ((x + 22) * _SCALE, y)], fill=colour, width=2 * _SCALE)
        pen.text(((x + 28) * _SCALE, y), words, _INK, font=small, anchor="lm")
        x += 44 + round(pen.textlength(words, font=small) / _SCALE)


def _dot(pen: ImageDraw.ImageDraw, point: _Point, colour: tuple[int, int, int]) -> None:
    x, y = point
    radius = 3 * _SCALE
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * _SCALE)
