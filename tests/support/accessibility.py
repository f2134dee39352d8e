"""Accessibility checks of pages: axe-core, widths and keyboard focus."""

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

WIDTHS = {"wide": 1280, "narrow": 390}


AXE = "options => axe.run(options).then(found => found.violations)"


COLOURS: dict[str, object] = {"runOnly": ["color-contrast", "link-in-text-block"]}


MOVING = """() => {
  const long = time => time.split(",").some(part => parseFloat(part) > 0.001);
  const style = [...document.querySelectorAll("*")].map(e => getComputedStyle(e));
  return style.filter(s => long(s.transitionDuration) || long(s.animationDuration)).length
    + document.getAnimations().length;
}"""


# What can be used, by the browser's own opinion; each gets a number.
USABLE = """() => {
  const kinds = "a[href], button, input, select, textarea, summary, [tabindex='0']";
  return [...document.querySelectorAll(kinds)].filter(e =>
    !e.disabled && e.type !== "hidden" && e.checkVisibility({ visibilityProperty: true })
  ).map((e, n) => {
    e.dataset.number = n;
    return e.outerHTML.slice(0, 160);
  });
}"""


# Where the focus is: whether somebody sees the ring, and whether anything covers it.
FOCUS = """() => {
  const e = document.activeElement;
  if (e === document.body) return null;
  const ringed = (of, part) => {
    const s = getComputedStyle(of, part);
    return s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2;
  };
  const label = e.closest("label");
  const ring = ringed(e) || ringed(e, "::after") || Boolean(label && ringed(label));
  const box = e.getBoundingClientRect();
  const at = [[0.5, 0.5], [0.05, 0.2], [0.95, 0.8]].map(([x, y]) =>
    document.elementFromPoint(box.left + x * box.width, box.top + y * box.height));
  const seen = at.some(top => top && (e.contains(top) || top.contains(e)));
  return { number: e.dataset.number ?? null, ring, seen, said: e.outerHTML.slice(0, 160) };
}"""


def violations(page: Page, options: dict[str, object] | None = None) -> list[str]:
    """What axe-core finds, one line for each element."""
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(AXE_SCRIPT)
    found = page.evaluate(AXE, {"resultTypes": ["violations"], **(options or {})})
    return [f"{v['id']}: {v['help']}: {n['html'][:200]}" for v in found for n in v["nodes"]]


def beyond(page: Page) -> int:
    """Pixels that a page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))
