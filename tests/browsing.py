"""Pages of reports in the Chromium of the system."""

import contextlib
import os
import shutil

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
LEAST_CONTRAST = """marks => {
    const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const light = colour => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map(one => linear(Number(one) / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
    };
    const ground = light(getComputedStyle(document.body).backgroundColor);
    const contrast = colour => Math.max(light(colour), ground) / Math.min(light(colour), ground);
    const words = "p, h1, h2, h3, td, th, a, figcaption, summary, label, button";
    const colours = [...document.querySelectorAll(words)].map(e => getComputedStyle(e).color);
    const fills = [...document.querySelectorAll(marks)].map(e => getComputedStyle(e).fill);
    return Math.min(...[...colours, ...fills].map(contrast));
}"""
DRAWN = "window.report && !document.body.dataset.drawing"


@contextlib.contextmanager
def launched():
    """The browser; skips the test that needs it where there is none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine; CHROMIUM names one")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield found
        found.close()


@contextlib.contextmanager
def opening(browser):
    """(workdir, options) -> its page; whatever it says to the console, and whatever it asks for, is kept."""
    contexts = []

    def open_(root, **options):
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options))
        page = contexts[-1].new_page()
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto((root / "report" / "index.html").as_uri())
        page.wait_for_function(DRAWN)
        return page

    yield open_
    for context in contexts:
        context.close()


def least_contrast(page, marks):
    """Of the words of a page, and of those in its figures that the selector `marks` finds, with the background."""
    return page.evaluate(LEAST_CONTRAST, marks)
