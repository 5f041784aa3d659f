"""The report: one page that a customer can be shown, with the answer on top."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from ..data.reading import Array
from ..files import write_text
from ..sheets import contact_sheet, html_page, html_picture, outlined
from .statistics import MEASURES, PRIMARY, Interval, parts_needed

Results = Mapping[str, Any]


class Arm(NamedTuple):
    """How an arm is called in tables and in sentences, and what it is."""

    title: str
    name: str
    about: str


CALLED = {
    "photographs": Arm("Photographs alone", "photographs", "the photographs of real defects, and good ones"),
    "painted": Arm("+ painted", "painted defects", "defects that the model painted into good photographs"),
    "generated": Arm(
        "+ generated", "generated images", "images that the model drew whole, beside their twins without the defect"
    ),
    "painted_gated": Arm(
        *("+ painted, gated", "painted defects that passed the gate"),
        "of such paintings those that the quality gate lets pass",
    ),
    "generated_gated": Arm(
        *("+ generated, gated", "generated images that passed the gate"),
        "of such images those that the quality gate lets pass",
    ),
    "crop_paste": Arm(
        "+ Crop&Paste", "Crop&Paste", "real defects, cut out and laid over good photographs: needs no model"
    ),
    "mixture": Arm("+ mixture of all", "a mixture of all", "equally many of each"),
    "perlin": Arm(
        *("+ Perlin", "Perlin defects"),
        "another good photograph in blots of noise, much as DRAEM and anomalib do: needs no model and no real defect",
    ),
}
WITH_MODEL = ("painted", "painted_gated", "generated", "generated_gated", "mixture")
COLOURS = {"helps": "#15803d", "harms": "#b91c1c", "does not help": "#525252", "cannot tell": "#a16207"}
_CELL = 160
# From the one that leads to the last.
_IN_WORDS = {
    "helps": "it helps",
    "cannot tell": "too few to tell",
    "does not help": "it does not help",
    "harms": "it harms",
}

LITTLE = 0.1
"""Pixel AP of the photographs alone below which the report says that the detector has hardly learnt."""


def arm_of(row: str, ratio: float) -> Arm:
    """Return how a row such as painted@0.5 is called: with its ratio where that is another than the run's."""
    name, _, own = row.partition("@")
    arm, share = CALLED[name], "" if not own or float(own) == ratio else f" ({float(own):.0%} of the defects)"
    return arm._replace(title=arm.title + share, name=arm.name + share)


def _has_model(row: str) -> bool:
    return row.partition("@")[0] in WITH_MODEL


def sentence(results: Results) -> str:
    """Return the answer: it helps, it does not, it harms, or these photographs are too few to tell.

    It is about the arms that need a model, if there is one; `remarks` has the others. The best arm leads, and arms of
    which something else holds follow.
    """
    return _answer(results)[0]


def _answer(results: Results) -> tuple[str, str]:
    """Return the answer, and the colour that goes with it."""
    if results["overlaps"]:
        return "No answer: a model has learnt from parts that it would be tested on.", COLOURS["does not help"]
    arms = results["arms"]
    asked = {row: arm for row, arm in arms.items() if _has_model(row) and results["models"]} or arms
    rows = {answer: [row for row in asked if asked[row]["answer"] == answer] for answer in _IN_WORDS}
    answer, *others = (answer for answer in rows if rows[answer])
    best = max(rows[answer], key=lambda row: asked[row]["differences"][PRIMARY]["value"])
    gain = Interval(**asked[best]["differences"][PRIMARY])
    ratio = results["settings"]["ratio"]
    name = arm_of(best, ratio).name
    if answer == "helps":
        text = (
            f"It helps: with {name} beside the photographs, the detector gains {100 * gain.value:.1f} points of pixel "
            f"AP on parts that nothing has seen ({_span(gain)})."
        )
    elif answer == "cannot tell":
        tested = results["photographs"]["tested_parts"]
        needed = max(parts_needed(gain, tested, results["settings"]["least_gain"]), tested + 1)
        text = (
            f"These photographs are too few to tell: with {name} beside them, the detector changes by "
            f"{100 * gain.value:+.1f} points of pixel AP ({_span(gain)}); it would take about {needed} held-back "
            f"parts with a defect, and there are {tested}."
        )
    else:
        text = (
            f"It {answer}: with {name} beside the photographs, the detector changes by {100 * gain.value:+.1f} "
            f"points of pixel AP ({_span(gain)})."
        )
    for other in others:
        text += f" With {', '.join(arm_of(row, ratio).name for row in rows[other])}: {_IN_WORDS[other]}."
    return text, COLOURS[answer]


def remarks(results: Results) -> list[str]:
    """Return what belongs to the answer: whether there is a detector to compare with, and the models' origin.

    Then how what needs no model does.
    """
    ratio = results["settings"]["ratio"]
    lines = list(results["notes"])
    level = results["baseline"][PRIMARY]["value"]
    if level < LITTLE:
        lines.append(
            f"Trained on the photographs alone, the detector finds little (pixel AP {100 * level:.1f} points of 100): "
            "what is compared here are networks that have hardly learnt. Train them longer (--steps), or on more "
            "photographs of the defect."
        )
    arms = results["arms"]
    free = {row: arm for row, arm in arms.items() if not _has_model(row)}
    if free and results["models"] and not results["overlaps"]:
        said = [
            f"{arm_of(row, ratio).name}: {arm['answer']} ({100 * arm['differences'][PRIMARY]['value']:+.1f} points)"
            for row, arm in free.items()
        ]
        lines.append(f"What needs no model, for comparison: {'; '.join(said)}.")
    for row, differences in results["gated"].items() if not results["overlaps"] else ():
        gain = Interval(**differences[PRIMARY])
        lines.append(
            f"With {arm_of(row, ratio).name} in place of all of them, the detector changes by {100 * gain.value:+.1f} "
            f"points of pixel AP ({_span(gain)}, for this comparison alone)."
        )
    return lines


def write_report(output_dir: Path, results: Results, pictures: Mapping[str, Any]) -> Path:
    """Write report.html, one file with its pictures in it, and table.md, and return the page's path.

    Args:
        output_dir: folder.
        results: what results.json holds.
        pictures: `made`, examples (image, mask) by arm; `tested`, (name, image, mask, logits by row) of held-back
            photographs; `threshold`, the logit from which a pixel is found.
    """
    counts, settings = results["photographs"], results["settings"]
    answer, colour = _answer(results)
    network = results["network"]
    body = [
        f"<p class='kicker'>{escape(results['product'])}: {escape(', '.join(results['defects']))}</p>",
        f"<h1 style='border-color:{colour}'>{escape(answer)}</h1>",
        *(f"<p>{escape(line)}</p>" for line in remarks(results)),
        "<h2>What was measured</h2>",
        f"<p>{counts['tested_defects']} photographs of {counts['tested_parts']} parts with a defect and "
        f"{counts['tested_good']} of {counts['tested_good_parts']} parts without one were held back: no "
        f"detector was trained on them. On the other parts, with {counts['train_defects']} "
        f"photographs of defects and {counts['train_good']} good ones, {results['seeds']} segmentation networks were "
        f"trained for each row below, for equally many steps ({settings['steps']}). Where defects were made, they "
        f"stood in for {settings['ratio']:.0%} of the defects shown.</p>",
        _table(results),
        _forest(results),
        "<p class='small'>In points (hundredths). Brackets: 95 % intervals for other parts and other seeds (paired "
        "bootstrap over parts, variance between seeds added). Those of the differences in pixel AP, which alone "
        f"decide, hold for all rows at once. “Does not help” means: a gain of {100 * settings['least_gain']:g} points "
        "or more is ruled out. Pixel AP: area under precision and recall of pixels. PRO: share of each defect that is "
        "found, at up to 30 % false positives. F1-max: at the best threshold. Image AUROC: defective against good "
        "photographs.</p>",
        "<h2>What the networks were shown</h2>",
        *(_made(arm, examples) for arm, examples in pictures["made"].items()),
        "<h2>What they found</h2>",
        _found(pictures, settings["ratio"]),
        "<h2>The network to take along</h2>",
        f"<p>{escape(arm_of(network['arm'], settings['ratio']).title)}, first seed: <code>network.onnx</code> and "
        "<code>network.safetensors</code> (<code>dfmgan_hf.prove.detector.Detector</code>). It takes "
        f"{escape(network['input'])}, and says how probable a defect is in each pixel; F1 is best from "
        f"{network['threshold']:.3f} on (chosen on the held-back photographs: check it on new ones).</p>",
        _models(results),
    ]
    page = output_dir / "report.html"
    write_text(page, html_page(escape(answer), "\n".join(body), _STYLE))
    write_text(output_dir / "table.md", markdown(results))
    return page


def markdown(results: Results) -> str:
    """Return the table for a document."""
    heads = [f"{title} (gain)" for title in MEASURES.values()]
    lines = [f"| | {' | '.join(heads)} | |", f"|---|{'---|' * (len(heads) + 1)}"]
    for title, _, cells, answer in _rows(results):
        texts = [f"{level} ({note})" if answer else f"{level} {note}" for level, note in cells]
        lines.append(f"| {' | '.join([title, *texts])} | {answer}{' ' if answer else ''}|")
    return "\n".join([*lines, "", sentence(results), *remarks(results)]) + "\n"


def _rows(results: Results) -> Iterator[tuple[str, str, list[tuple[str, str]], str]]:
    """Yield title, explanation, cells and answer of each row of the table; photographs alone, without one, first.

    A cell is the level in points, and its interval or, of the other rows, the gain and its interval.
    """
    levels = results["baseline"]
    cells = [(_points(levels[key]), _brackets(levels[key])) for key in MEASURES]
    yield CALLED["photographs"].title, CALLED["photographs"].about, cells, ""
    for row, arm in results["arms"].items():
        gains = (arm["differences"][key] for key in MEASURES)
        notes = (f"{_points(gain, '+')} {_brackets(gain, '+')}" for gain in gains)
        cells = [(_points(arm["values"][key]), note) for key, note in zip(MEASURES, notes, strict=True)]
        called = arm_of(row, results["settings"]["ratio"])
        yield called.title, called.about, cells, arm["answer"]


def _points(values: Mapping[str, float], sign: str = "", key: str = "value") -> str:
    return f"{100 * values[key]:{sign}.1f}"


def _brackets(values: Mapping[str, float], sign: str = "") -> str:
    return f"[{_points(values, sign, 'low')}, {_points(values, sign, 'high')}]"


def _span(gain: Interval) -> str:
    return f"95 % interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f}"


def _table(results: Results) -> str:
    heads = "".join(f"<th>{title}</th>" for title in MEASURES.values())
    rows = []
    for title, about, cells, answer in _rows(results):
        texts = "".join(f"<td>{level}<br><span>{note}</span></td>" for level, note in cells)
        last = f"<td style='color:{COLOURS[answer]}'><b>{answer}</b></td>" if answer else "<td></td>"
        rows.append(f"<tr><th>{escape(title)}<br><span>{escape(about)}</span></th>{texts}{last}</tr>")
    return f"<div class='wide'><table><tr><th></th>{heads}<th></th></tr>{''.join(rows)}</table></div>"


def _forest(results: Results) -> str:
    """Draw the differences in the deciding measure, with their intervals, around zero."""
    rows = [
        (
            arm_of(row, results["settings"]["ratio"]).title,
            Interval(**arm["differences"][PRIMARY]),
            COLOURS[arm["answer"]],
        )
        for row, arm in results["arms"].items()
    ]
    least = results["settings"]["least_gain"]
    reach = 1.1 * max(2 * least, *(max(abs(gain.low), abs(gain.high)) for _, gain, _ in rows))

    def x(value: float) -> float:
        return 420 + 270 * value / reach

    height = 34 * len(rows) + 40
    parts = [
        f"<rect x='{x(0):.1f}' y='0' width='{x(least) - x(0):.1f}' height='{height - 30}' fill='#f1f1ee'/>",
        f"<line x1='{x(0):.1f}' x2='{x(0):.1f}' y1='0' y2='{height - 30}' stroke='#333'/>",
    ]
    for number, (title, gain, colour) in enumerate(rows):
        y = 34 * number + 20
        parts.append(
            f"<text x='0' y='{y + 5}'>{escape(title)}</text>"
            f"<line x1='{x(gain.low):.1f}' x2='{x(gain.high):.1f}' y1='{y}' y2='{y}' stroke='{colour}' "
            "stroke-width='3'/>"
            f"<circle cx='{x(gain.value):.1f}' cy='{y}' r='6' fill='{colour}'/>"
        )
    tick = max(math.floor(100 * reach / 5) * 5, 1) / 100 if reach > 0.05 else math.floor(1000 * reach) / 1000
    for value, text in ((-tick, f"{-100 * tick:+g}"), (0, "0"), (tick, f"{100 * tick:+g}")):
        parts.append(f"<text x='{x(value):.1f}' y='{height - 8}' text-anchor='middle'>{text}</text>")
    label = "Gain in pixel AP over photographs alone, in points"
    return (
        f"<figure><figcaption>{label}; grey: too small to matter</figcaption>"
        f"<svg viewBox='0 0 720 {height}' role='img' aria-label='{label}'>{''.join(parts)}</svg></figure>"
    )


def _made(arm: str, examples: Sequence[tuple[Array, Array]]) -> str:
    samples = [
        (Image.fromarray(image), outlined(Image.fromarray(image), Image.fromarray(mask), _CELL, 1))
        for image, mask in examples
    ]
    sheet = contact_sheet(samples, columns=3, picture_size=_CELL)
    caption = f"{CALLED[arm].title}: {CALLED[arm].about}. Not selected; right: with the label's outline"
    return _figure(sheet, caption)


def _found(pictures: Mapping[str, Any], ratio: float) -> str:
    rows = list(pictures["tested"][0][3])
    samples, captions = [], []
    for name, image, mask, found in pictures["tested"]:
        photograph = Image.fromarray(image)
        maps = [outlined(photograph, Image.fromarray(found[row] >= pictures["threshold"]), _CELL) for row in rows]
        samples.append((photograph, outlined(photograph, Image.fromarray(mask), _CELL), *maps))
        captions.append(name)
    headings = ["held back", "defect (truth)", *(arm_of(row, ratio).title for row in rows)]
    sheet = contact_sheet(samples, headings=headings, captions=captions, columns=1, picture_size=_CELL)
    return _figure(
        sheet, "Drawn by lot: photographs with a defect, then good ones; outlines at the network's threshold"
    )


def _figure(sheet: Image.Image, caption: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{html_picture(sheet, caption)}</figure>"


def _models(results: Results) -> str:
    lines = [
        f"<li>{escape(model['model'])}, tensors SHA-256 <code>{model['model_sha256'][:16]}</code>; "
        f"{'the photographs it learnt from are recorded' if model['origin_known'] else 'origin not recorded'}</li>"
        for model in results["models"]
    ]
    settings = results["settings"]
    lines.append(
        "<li>U-Net of segmentation-models-pytorch on timm's tf_efficientnet_lite0, "
        f"{'from ImageNet’s weights' if settings['pretrained'] else 'from scratch'}; {settings['num_made']} made "
        "defects for each network; all settings are in <code>results.json</code></li>"
    )
    return f"<h2>Of what</h2><ul>{''.join(lines)}</ul>"


_STYLE = """body { font-family: system-ui, sans-serif; color: #1c1c1c; background: #fff; margin: 2em auto;
       max-width: 1080px; padding: 0 1em; line-height: 1.5; }
h1 { font-size: 1.6rem; line-height: 1.35; border-left: 8px solid; padding: .2em 0 .2em .6em; margin: .4em 0 1em; }
h2 { font-size: 1.2rem; margin-top: 2em; }
.kicker { color: #555; margin: 0; }
.small, span, figcaption { font-size: .85rem; color: #555; font-weight: normal; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .5em .8em .5em 0; border-bottom: 1px solid #ddd; }
td, td span { white-space: nowrap; font-variant-numeric: tabular-nums; }
figure { margin: 1.2em 0; }
img { max-width: 100%; height: auto; }
svg { width: 100%; max-width: 800px; font-size: 14px; }
code { overflow-wrap: anywhere; }"""
