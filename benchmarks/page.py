"""HTML of one self-contained page: no network, no scripts, light and dark, readable on a phone.

Functions take text and escape it, but where a parameter is called `html` or `parts`: that is markup already.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

CSS = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c2127; --soft: #5c6571; --line: #dfe3e8; --card: #f5f6f8;
  --good: #1c7d57; --bad: #b3431e; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e4e7eb; --soft: #9aa4b0; --line: #2d333b;
  --card: #1c2026; --good: #56c596; --bad: #f0926b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem clamp(1rem, 4vw, 2.5rem) 4rem; max-width: 70rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: clamp(1.5rem, 4vw, 2.1rem); line-height: 1.2; margin: 0 0 .5rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 3rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; }
p { margin: .4rem 0; max-width: 48rem; }
.lead { color: var(--soft); font-size: 1.05rem; }
.soft { color: var(--soft); font-size: .9rem; }
.good { color: var(--good); } .bad { color: var(--bad); }
code { font: .85em ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 13rem), 1fr)); gap: .75rem;
  margin: 1.5rem 0 0; }
.tile { background: var(--card); border-radius: .6rem; padding: .8rem 1rem; }
.tile b { display: block; font-size: 1.35rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .85rem; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1.25rem; }
.beside > * { min-width: 0; }
.scroll { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; color: var(--soft); vertical-align: bottom; white-space: normal; }
th:first-child, td:first-child, .text td, .text th { text-align: left; padding-left: 0; }
.text td { white-space: normal; vertical-align: top; }
.text td:first-child { min-width: 6rem; }
td:first-child { font-weight: 600; }
td small { display: block; color: var(--soft); font-size: .8em; }
svg { display: block; width: 100%; height: auto; color: var(--ink); font-family: inherit; }
.chart { max-width: 34rem; margin: .5rem 0; }
.shots { display: grid; grid-template-columns: repeat(var(--columns), minmax(4rem, 1fr)); gap: .4rem;
  align-items: start; }
.shots b { font-size: .85rem; color: var(--soft); }
.shots img { display: block; width: 100%; height: auto; border-radius: .2rem; border: 1px solid var(--line); }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1rem; padding: 0; margin: .75rem 0; list-style: none;
  font-size: .85rem; }
.legend i { display: inline-block; width: .9em; height: .9em; margin-right: .4em; border: 1px solid var(--line);
  border-radius: .15em; vertical-align: -.08em; }
"""


def document(title: str, *parts: str) -> str:
    """The whole page."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n{''.join(parts)}</body>\n</html>\n"
    )


def header(title: str, lead: str) -> str:
    return f'<header>\n<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n</header>\n'


def section(title: str, *parts: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{''.join(parts)}</section>\n"


def heading(text: str) -> str:
    return f"<h3>{escape(text)}</h3>\n"


def paragraph(text: str, kind: str = "plain") -> str:
    """kind: "soft", "good", "bad" or "plain"."""
    return f'<p class="{kind}">{escape(text)}</p>\n'


def cell(text: str, code: bool = False) -> str:
    """Text for `text_table`, as code where it is to be typed or compared."""
    return f"<code>{escape(text)}</code>" if code else escape(text)


def tiles(facts: Iterable[tuple[str, str]]) -> str:
    """Figures that catch the eye: (figure, what it is)."""
    cells = "".join(f'<div class="tile"><b>{escape(a)}</b><span>{escape(b)}</span></div>\n' for a, b in facts)
    return f'<div class="tiles">\n{cells}</div>\n'


def beside(*parts: str) -> str:
    """Parts side by side where there is room, else below one another."""
    return '<div class="beside">\n' + "".join(f"<div>\n{part}</div>\n" for part in parts) + "</div>\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str | tuple[str, str]]]) -> str:
    """Figures: all but the first column flush right. A pair is a figure with small print below it."""

    def markup(cell: str | tuple[str, str]) -> str:
        return escape(cell) if isinstance(cell, str) else f"{escape(cell[0])}<small>{escape(cell[1])}</small>"

    return _table(head, ([markup(cell) for cell in row] for row in rows), "")


def text_table(head: Sequence[str], html: Iterable[Sequence[str]]) -> str:
    """Words, which may wrap. html: rows of cells that are markup."""
    return _table(head, html, ' class="text"')


def _table(head: Sequence[str], html: Iterable[Sequence[str]], kind: str) -> str:
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in html)
    return (
        f'<div class="scroll"><table{kind}>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>\n'
    )


def chart(html: str) -> str:
    """An inline SVG."""
    return f'<div class="chart">\n{html}\n</div>\n'


def image(data: bytes, kind: str, alt: str, width: int, height: int) -> str:
    """A picture inside the page. kind: "png" or "jpeg"."""
    encoded = base64.b64encode(data).decode()
    return f'<img src="data:image/{kind};base64,{encoded}" alt="{escape(alt)}" width="{width}" height="{height}">\n'


def shots(head: Sequence[str], html: Iterable[str]) -> str:
    """Pictures in columns, row after row."""
    top = "".join(f"<b>{escape(name)}</b>\n" for name in head)
    return f'<div class="scroll"><div class="shots" style="--columns: {len(head)}">\n{top}{"".join(html)}</div></div>\n'


def legend(colours: Iterable[tuple[str, tuple[int, int, int]]]) -> str:
    """Names beside their RGB colours."""
    entries = "".join(
        f'<li><i style="background: rgb({r} {g} {b})"></i>{escape(name)}</li>\n' for name, (r, g, b) in colours
    )
    return f'<ul class="legend">\n{entries}</ul>\n'
