"""The report in a real browser: everything is drawn, nothing is asked for, nothing overflows."""

import time
from functools import cache
from itertools import pairwise

import pytest
from patience import PATIENCE_S
from report_study import report_arguments

from aesearch.studies.report.page import report_page

HOSTILE = (
    "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>&amp;\"'"
)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """Write the report of a study whose every name is ``text``, once for each text."""
    folder = tmp_path_factory.mktemp("report")

    @cache
    def write(text: str = "pens"):
        path = folder / f"report-{len(text)}.html"
        path.write_text(report_page(**report_arguments(text=text)), encoding="utf-8")
        return path

    return write


def sizes(page) -> dict[str, list[float]]:
    """Width and height of the drawing in each figure; [] where there is none."""
    return page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll(".plot")].map((place) => {
            const box = place.querySelector("svg.main-svg")?.getBoundingClientRect();
            return [place.id, box ? [box.width, box.height] : []];
        }))"""
    )


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_everything_is_drawn_and_nothing_is_asked_for(visit, page_file, width, dark):
    """No console error, no request, every figure and picture there, no sideways scrolling."""
    seen = visit(page_file(), width=width, dark=dark)
    page = seen.page
    drawn = sizes(page)
    assert len(drawn) == 9
    assert all(size and min(size) > 100 for size in drawn.values()), drawn
    widths = page.evaluate("[...document.images].map((image) => image.naturalWidth)")
    assert widths == [300]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert seen.problems == []
    assert [url for url in seen.requests if not url.startswith("data:")] == [page.url]
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(20, 24, 28)" if dark else "rgb(247, 246, 243)")


def test_hostile_names_run_nothing(visit, page_file):
    """A name made of markup is shown as it is; no script of it runs, no image is asked for."""
    seen = visit(page_file(HOSTILE))
    assert seen.page.evaluate("window.hacked") is None
    assert seen.page.inner_text("h1") == HOSTILE
    assert seen.problems == []
    assert seen.page.evaluate("document.querySelectorAll('img[src=x]').length") == 0
    legend = seen.page.text_content("#plot-latent .legend")
    assert "0 </script><script>" in legend


def test_figures_follow_the_colours_of_the_system(visit, page_file):
    """A switch to dark while the page is open redraws the figures in colours for dark."""
    page = visit(page_file()).page
    color = "getComputedStyle(document.querySelector('#plot-history .xtick text')).fill"
    light = page.evaluate(color)
    page.emulate_media(color_scheme="dark")
    # Asked again and again from here: the page's own policy lets no string be run in it.
    deadline = time.monotonic() + PATIENCE_S
    while page.evaluate(color) == light and time.monotonic() < deadline:
        page.wait_for_timeout(50)
    assert page.evaluate(color) == "rgb(160, 169, 179)"


def test_the_table_is_sorted_by_keyboard(visit, page_file):
    """Enter on a heading sorts by its column, again reverses it; empty cells stay last."""
    page = visit(page_file()).page
    values = (
        "[...document.querySelectorAll('table.sortable tbody tr')]"
        ".map((row) => row.cells[2].dataset.key)"
    )
    button = page.locator("table.sortable thead button").nth(2)
    button.focus()
    for reverse, direction in ((False, "ascending"), (True, "descending")):
        page.keyboard.press("Enter")
        found = page.evaluate(values)
        assert found[-1] == ""
        numbers = [float(value) for value in found if value]
        assert numbers == sorted(numbers, reverse=reverse)
        assert len(numbers) == 29
        assert button.locator("..").get_attribute("aria-sort") == direction


def test_paper_is_white_and_wide_enough(visit, page_file, tmp_path):
    """Printed from a dark screen, figures are drawn for white paper and fit on it."""
    page = visit(page_file(), dark=True).page
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert all(width <= 680 for width, _ in sizes(page).values())
    ink = "getComputedStyle(document.querySelector('#plot-history .xtick text')).fill"
    assert page.evaluate(ink) == "rgb(89, 99, 110)"
    assert page.evaluate("document.querySelectorAll('details:not([open])').length") == 0


def test_every_figure_and_picture_has_words(visit, page_file):
    """Who does not see the drawing is told what it shows; headings go down by one step."""
    page = visit(page_file()).page
    told = page.evaluate("[...document.querySelectorAll('.plot')].map((p) => p.ariaLabel)")
    assert all(len(words) > 40 for words in told)
    assert page.evaluate("[...document.images].every((image) => image.alt.length > 10)")
    levels = page.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4')].map((h) => +h.tagName[1])"
    )
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
