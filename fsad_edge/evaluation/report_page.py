"""The report as one page that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

import numpy as np

from fsad_edge.evaluation.best_threshold import Operating
from fsad_edge.evaluation.figures import DefectFigures, Evaluation
from fsad_edge.evaluation.rate import Rate, rate
from fsad_edge.evaluation.report_charts import histogram, roc_chart
from fsad_edge.evaluation.report_mistakes import Case, Group, closest, mistakes
from fsad_edge.evaluation.report_tiles import data_url, pair
from fsad_edge.evaluation.report_words import (
    About,
    bounds,
    certainty,
    hardest_first,
    in_use,
    is_worth_setting,
    next_step,
    percent,
    rejected,
    set_command,
    verdict,
    what_decides,
)
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.files import folder_and_name
from fsad_edge.runtime.heatmap import LEGENDS, colour_scale
from fsad_edge.runtime.image_scale import ImageScale
from fsad_edge.runtime.plain_text import printable

#: Images shown of each kind of mistake, and of the closest calls; the others are named.
MOST_SHOWN, CLOSEST_SHOWN = 36, 6
#: Names that stand below the images; the others are counted.
MOST_NAMED = 500
_SIDE = 360  # longer side of a photograph in pixels
_TILE_HEIGHT = 240  # of a picture on a wide screen, in pixels


def page(evaluation: Evaluation, cases: Sequence[Case], about: About, scale: ImageScale) -> str:
    """The whole page as HTML.

    Args:
        evaluation: the figures.
        cases: all images with what was said of them.
        about: the title, and what the words need.
        scale: the model's, for images of more than 8 bits.

    Raises:
        InputError: an image or a mask can no longer be read.
    """
    title = escape(printable(about.title))
    sections = [
        _head(evaluation, about, title),
        _figures(evaluation),
        _charts(evaluation, cases, about),
        _thresholds(evaluation, about),
        _defects(evaluation),
        *_mistakes(mistakes(cases), scale),
        *(_shown(group, scale, CLOSEST_SHOWN) for group in closest(cases, True) if group.cases),
        _reading(evaluation),
    ]
    style = files("fsad_edge.evaluation").joinpath("report_page.css").read_text("utf-8")
    allowed = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{allowed}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="generator" content="fsad-edge"><title>{title}</title>'
        f"<style>\n{style}</style></head>\n<body><main>\n"
        + "\n".join(sections)
        + "\n</main></body></html>\n"
    )


def _head(figures: Evaluation, about: About, title: str) -> str:
    counts = f"{figures.n_good} good and {figures.n_defective} defective images"
    if figures.n_defective:
        counts += f", {figures.n_masked} of them with a mask"
    return (
        f'<header><h1>{title}</h1><p class="quiet">{counts}</p></header>\n'
        f'<section class="verdict"><p class="first">{escape(verdict(figures))}</p>'
        f"<p>{escape(certainty(figures))}</p>"
        f"<p><b>What decides:</b> {escape(what_decides(figures, about))}</p>"
        f"<p><b>What to do next:</b> {escape(next_step(figures, about))}</p></section>"
    )


def _figures(figures: Evaluation) -> str:
    cards = [_card("good parts rejected", rate(figures.false_alarms, figures.n_good))]
    if figures.n_defective:
        cards.insert(0, _card("defective parts rejected", rejected(figures)))
        cards.insert(1, _card("defects missed", rate(figures.missed, figures.n_defective)))
        if figures.regions.rejected_elsewhere:
            elsewhere = rate(figures.regions.rejected_elsewhere, figures.n_masked)
            cards.insert(2, _card("rejected, but not where the defect is", elsewhere))
    open_ = figures.not_judged_good + figures.not_judged_defective
    if open_:
        cards.append(_card("not judged", rate(open_, figures.n_good + figures.n_defective)))
    areas = (
        ("image AUROC", figures.image_auroc, "1 ranks every defect above every good part"),
        ("pixel AUROC", figures.pixel_auroc, "1 ranks every pixel of a defect above all others"),
        ("AUPRO (30 %)", figures.aupro, "1 covers all defects without false pixels"),
    )
    cards += [
        _number(name, f"{value:.3f}", note) for name, value, note in areas if value is not None
    ]
    return f'<section><h2>Figures</h2><dl class="cards">{"".join(cards)}</dl></section>\n' + (
        f'<section><h2>Regions <span>where the model points</span></h2><dl class="cards">'
        f"{''.join(_region_cards(figures))}</dl>{_unmeasured(figures)}</section>"
    )


def _region_cards(figures: Evaluation) -> Iterable[str]:
    regions = figures.regions
    if regions.recall.of:
        yield _card("defect regions found (recall)", regions.recall)
    if regions.precision.of:
        yield _card("found regions on a defect (precision)", regions.precision)
    elif regions.recall.of:
        yield _number("found regions on a defect (precision)", "none found", "nothing to count")
    if regions.area_on_defects is not None:
        share = percent(regions.area_on_defects)
        yield _number("of their area on defects", share, "low where regions are far larger")
    if regions.false_regions_per_good is not None:
        with_one = regions.good_with_regions
        yield _number(
            "false regions a good image",
            f"{regions.false_regions_per_good:.2f}",
            f"{regions.false_regions} in {with_one.of}; {percent(with_one.share)} have one or more "
            f"({bounds(with_one)})",
        )


def _unmeasured(figures: Evaluation) -> str:
    """What the figures of regions leave out, and why."""
    regions, said = figures.regions, list[str]()
    if figures.n_defective and not figures.n_masked:
        said.append(
            "No image has a mask, so that nobody knows whether what is found lies on the defects: "
            "put masks into ground_truth/DEFECT to measure it."
        )
    elif regions.without_mask:
        said.append(f"{regions.without_mask} defective images without a mask are left out.")
    if regions.not_judged:
        said.append(f"{regions.not_judged} images that are not judged are left out.")
    return f'<p class="quiet">{" ".join(said)}</p>' if said else ""


def _card(name: str, found: Rate) -> str:
    note = f"{percent(found.share)}, with 95 % confidence {bounds(found)}"
    return _number(name, f"{found.count} of {found.of}", note)


def _number(name: str, value: str, note: str) -> str:
    return f"<div><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>"


def _charts(figures: Evaluation, cases: Sequence[Case], about: About) -> str:
    scores = np.array([case.result.score for case in cases], dtype=np.float64)
    defective = np.array([case.sample.defect is not None for case in cases])
    keys = [_key('<path class="good" d="M3 2h16v12H3z"/>', "good")]
    if defective.any():
        keys.append(_key('<path class="bad" d="M3 2h16v12H3z"/>', "defective"))
    keys.append(_key('<path class="threshold" d="M11 0v16"/>', "threshold in use"))
    best = figures.best
    if best is not None:
        keys.append(
            _key(
                '<path class="other" d="M11 0v16"/>',
                "fewest misses within the false alarms asked for, where that differs",
            )
        )
    drawn = (
        f"<section><h2>Scores</h2><div>{histogram(scores, defective, figures)}"
        f'<ul class="key">{"".join(keys)}</ul></div></section>'
    )
    if defective.any():
        now = in_use(figures)
        keys = [_key('<circle class="now" cx="11" cy="8" r="6"/>', _rates("in use", now))]
        if best is not None:
            diamond = '<path class="best" d="M11 1l7 7l-7 7l-7 -7z"/>'
            name = f"fewest misses with up to {100 * about.asked:g} % false alarms"
            keys.append(_key(diamond, _rates(name, best.within)))
        drawn += (
            f"<section><h2>ROC <span>every other threshold</span></h2>"
            f"<div>{roc_chart(scores, defective, figures)}"
            f'<ul class="key">{"".join(keys)}</ul></div></section>'
        )
    return f'<div class="charts">{drawn}</div>'


def _key(mark: str, text: str) -> str:
    return f'<li><svg viewBox="0 0 22 16" aria-hidden="true">{mark}</svg>{text}</li>'


def _rates(name: str, one: Operating) -> str:
    return (
        f"{name}, {one.threshold:.4g}: {percent(1 - one.miss_rate)} of the defects and "
        f"{percent(one.false_alarm_rate)} of the good parts rejected"
    )


def _thresholds(figures: Evaluation, about: About) -> str:
    best = figures.best
    if best is None:
        return ""
    good = figures.n_good - figures.not_judged_good
    bad = figures.n_defective - figures.not_judged_defective
    first = f"first: fewest misses with up to {100 * about.asked:g} % false alarms"
    least = "least sum of both errors"
    named = [("in use", in_use(figures)), (first, best.within), (f"second: {least}", best.balanced)]
    if best.balanced == best.within:
        named[1:] = [(f"{first}, and {least}", best.within)]
    rows = [
        (
            name,
            f"{one.threshold:.6g}",
            _cell(rate(round(one.false_alarm_rate * good), good)),
            _cell(rate(round(one.miss_rate * bad), bad)),
        )
        for name, one in named
    ]
    commands = "".join(
        f'To set the {name}: <code class="line">{escape(set_command(about, one.threshold))}</code>'
        for name, (_, one) in zip(("first", "second"), named[1:], strict=False)
        if one.miss_rate < 1 and is_worth_setting(best)
    )
    unjudged = good < figures.n_good or bad < figures.n_defective
    of = " Only images that are judged are counted here." if unjudged else ""
    return (
        "<section><h2>Other thresholds</h2>"
        f"{_table(('', 'threshold', 'false alarms', 'missed defects'), rows)}"
        '<p class="quiet">They are chosen on these very images, so expect a little more of both '
        f"errors on others.{of}</p>{commands}</section>"
    )


def _defects(figures: Evaluation) -> str:
    if not figures.by_defect:
        return ""
    masked = any(row.regions for row in figures.by_defect)
    headings = (
        "defect", "images", "AUROC", "missed", "not judged", "regions found", "rejected elsewhere",
    )  # fmt: skip
    hardest = hardest_first(figures)
    rows = [_defect_row(row) for row in hardest]
    if len(hardest) > 1:
        assert figures.image_auroc is not None
        missed = _cell(rate(figures.missed, figures.n_defective))
        rows.append(
            (
                "all",
                f"{figures.n_defective}",
                f"{figures.image_auroc:.3f}",
                missed,
                f"{figures.not_judged_defective}",
                _cell(figures.regions.recall),
                f"{figures.regions.rejected_elsewhere}",
            )
        )
    columns = len(headings) - (0 if masked else 2)
    table = _table(headings[:columns], [row[:columns] for row in rows], len(hardest) > 1)
    return f"<section><h2>By defect <span>the most missed first</span></h2>{table}</section>"


def _defect_row(row: DefectFigures) -> tuple[str, ...]:
    return (
        escape(printable(row.defect)),
        f"{row.n}",
        f"{row.image_auroc:.3f}",
        _cell(rate(row.missed, row.n)),
        f"{row.not_judged}",
        "no mask" if row.regions is None else _cell(row.regions),
        "no mask" if row.regions is None else f"{row.rejected_elsewhere}",
    )


def _cell(found: Rate) -> str:
    share = f"{percent(found.share)} ({bounds(found)})" if found.of else "nothing to count"
    return f"<span>{found.count} of {found.of}<small>{share}</small></span>"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], sums: bool = False) -> str:
    """A table whose first column names the rows; on a phone each row is a list.

    Args:
        headings: of the columns.
        rows: the cells as HTML.
        sums: the last row sums up the others.
    """
    body = ""
    for number, (name, *cells) in enumerate(rows, 1):
        kind = ' class="all"' if sums and number == len(rows) else ""
        named = "".join(
            f'<td data-name="{heading}">{cell}</td>'
            for heading, cell in zip(headings[1:], cells, strict=True)
        )
        body += f'<tr{kind}><th scope="row">{name}</th>{named}</tr>'
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _mistakes(groups: Sequence[Group], scale: ImageScale) -> Iterable[str]:
    """A section for each kind of mistake, and one for all kinds that there are none of."""
    yield from (_shown(group, scale, MOST_SHOWN) for group in groups if group.cases)
    none = [f"<h2>{group.heading} <span>none</span></h2>" for group in groups if not group.cases]
    if none:
        yield f"<section>{''.join(none)}</section>"


def _shown(group: Group, scale: ImageScale, most: int) -> str:
    """Images under a heading: some are shown, others named."""
    count = len(group.cases)
    shown, others = group.cases[:most], group.cases[most:]
    pictures = [pair(case, scale, group.colours, _SIDE) for case in shown]
    tiles = "".join(map(_tile, shown, pictures))
    span = f"{count}" if most == MOST_SHOWN else f"the first {len(shown)}"
    more = ""
    if others and most == MOST_SHOWN:
        names = "".join(
            f"<li>{escape(printable(folder_and_name(case.sample.path)))} ({case.ratio:.2f})</li>"
            for case in others[:MOST_NAMED]
        )
        unnamed = len(others) - MOST_NAMED
        rest = f"<p>and {unnamed} more, which eval --json counts</p>" if unnamed > 0 else ""
        more = (
            f"<details><summary>{len(others)} more, by name</summary>"
            f'<ul class="names">{names}</ul>{rest}</details>'
        )
    width = f"--tile: {_tile_width(pictures)}px"
    return (
        f"<section><h2>{group.heading} <span>{span}</span></h2>"
        f'{_legend(group)}<div class="tiles" style="{width}">{tiles}</div>{more}</section>'
    )


def _tile_width(pictures: Sequence[UInt8Array]) -> int:
    """The least width of a tile in pixels, as wide as most of the pictures are."""
    widths = [_TILE_HEIGHT * picture.shape[1] / picture.shape[0] for picture in pictures]
    return int(np.clip(np.median(widths) + 16, 180, 340))


def _tile(case: Case, picture: UInt8Array) -> str:
    name = escape(printable(folder_and_name(case.sample.path)))
    words = escape(printable(case.words))
    wrong = ' class="wrong"' if case.wrong else ""
    reasons = "; ".join(getattr(one, "text", "") for one in getattr(case.result, "reasons", ()))
    why = f"<br>{escape(printable(reasons))}" if reasons else ""
    return (
        f'<figure><img src="{data_url(picture)}" '
        f'alt="{name} and its anomaly map" loading="lazy"><figcaption><b{wrong}>{words}</b>'
        f'{case.ratio:.2f} x threshold <span class="quiet">{name}{why}</span></figcaption></figure>'
    )


def _legend(group: Group) -> str:
    lowest, *_, highest = LEGENDS[group.colours]
    bar = data_url(colour_scale(180, 12, group.colours))
    masked = any(case.sample.mask is not None for case in group.cases)
    cyan = " The cyan outline is the marked defect." if masked else ""
    return (
        f'<div class="scale quiet"><span>{lowest:g}</span><img src="{bar}" alt="colour scale">'
        f"<span>{highest:g} x threshold. The white line is where the map crosses 1.0.{cyan}</span>"
        "</div>"
    )


def _reading(figures: Evaluation) -> str:
    masked = (
        "<p>A defect region is a connected part of a mask. It is found where a region of the model "
        "shares at least a tenth of the smaller one's area with it. Recall is the share of defect "
        "regions that are found; precision is the share of the model's regions, in defective "
        "images with masks, that meet a defect.</p>"
        if figures.n_masked
        else ""
    )
    return (
        "<section><h2>How to read this</h2><p>An image that is not judged is neither a false alarm "
        "nor a miss: it is counted apart. The range behind a share holds the true one in 95 of 100 "
        "such measurements (Clopper and Pearson), if the parts to come are like these.</p>"
        f"{masked}<p>All scores are shown as multiples of the threshold: a part is rejected above "
        "1.0.</p></section>"
    )
