"""What stands in the way of somebody who reads a page with a keyboard, a screen reader or weak eyes."""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
_MOST_STOPS = 200
_STOPS = """() => {
  const look = e => { const s = getComputedStyle(e);
    return [s.outlineStyle, s.outlineWidth, s.outlineColor, s.boxShadow, s.backgroundColor, s.borderColor,
            s.textDecorationLine].join('|'); };
  const able = [...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex]')]
    .filter(e => e.tabIndex >= 0 && !e.disabled && e.type !== 'hidden' && e.checkVisibility());
  // a group of radio buttons is one stop
  const wanted = able.filter(e => e.type !== 'radio'
    || e === (document.querySelector(`input[name="${e.name}"]:checked`)
              ?? document.querySelector(`input[name="${e.name}"]`)));
  window.stops = wanted.map(e => ({e, before: look(e), reached: false, seen: false}));
  window.lookOf = look;
  const inside = 'a, button, input, select, textarea, summary, label, option, [tabindex]';
  return [wanted.length, [...document.querySelectorAll('body *')].filter(e =>
      getComputedStyle(e).cursor === 'pointer' && !e.closest(inside) && !e.querySelector(inside) && e.checkVisibility())
    .map(e => `no key reaches ${e.outerHTML.slice(0, 120)}`)];
}"""
_STOPPED = """() => {
  const stop = window.stops.find(each => each.e === document.activeElement);
  if (stop) { stop.reached = true; stop.seen = window.lookOf(stop.e) !== stop.before; }
}"""
_FAULTS = """() => window.stops.flatMap(({e, reached, seen}) =>
  !reached ? [`Tab never reaches ${e.outerHTML.slice(0, 120)}`]
  : !seen ? [`nothing shows the focus on ${e.outerHTML.slice(0, 120)}`] : [])"""


def violations(page: Page) -> list[str]:
    """What axe finds against WCAG 2.2's level AA, and of its other rules what it calls serious."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{each['id']} ({each['impact']}), {len(each['nodes'])} times: {each['nodes'][0]['html'][:160]} "
        f"{(each['nodes'][0].get('failureSummary') or '')[:260]}"
        for each in found
        if each["impact"] in ("serious", "critical") or set(each["tags"]) & set(_RULES)
    ]


def keyboard_faults(page: Page) -> list[str]:
    """What the Tab key does not reach, what shows no focus when it does, and what only a mouse can click."""
    stops, faults = page.evaluate(_STOPS)
    assert stops <= _MOST_STOPS, f"{stops} stops are too many for somebody who has no mouse"
    for _ in range(stops + 1):
        page.keyboard.press("Tab")
        page.evaluate(_STOPPED)
    return [*faults, *page.evaluate(_FAULTS)]
