"""What a policy says, asked of a person: from nothing, or from what an LLM has drafted."""

from __future__ import annotations

from collections.abc import Callable

from ontopic.config.policy import Border, Example
from ontopic.drafting.draft import Draft
from ontopic.drafting.terminal import Terminal

_VERBS = {"pass": "passes", "fail": "fails"}
_EXAMPLES = 2  # as many as a policy must have


def agreed(draft: Draft, terminal: Terminal, *, keep: Callable[[Draft], object]) -> Draft:
    """Ask for definition, border, refusal and examples, each of which is kept at once.

    What is drafted is shown and stays on Enter.

    Raises:
        LeaveError: the person leaves, or the input ends; the draft is kept as far as it has come.
    """

    def kept(**what: object) -> Draft:
        changed = draft.model_copy(update=what)
        keep(changed)
        return changed

    draft = kept(definition=terminal.text("What is in scope, in a sentence or two", proposed=draft.definition))
    before = draft.border or Border()
    inside = terminal.lines("Subjects near the border that belong to it", proposed=before.in_scope)
    outside = terminal.lines("Subjects near the border that do not", proposed=before.out_of_scope)
    draft = kept(border=Border(in_scope=inside, out_of_scope=outside))
    proposed = draft.refusal or f"I'm sorry, I can only help with {draft.subject} questions."
    draft = kept(refusal=terminal.text("The sentence that declines", proposed=proposed))
    draft = kept(examples=_drafted(draft, terminal))
    while lacking := _lacking(draft.examples):
        terminal.say(f"\nAn example of an answer that {_VERBS[lacking]}.")
        draft = kept(examples=(*draft.examples, _example(terminal, lacking)))
    while terminal.choice("One more example? (y/n, Enter: n) ", keys="yn", default="n") == "y":
        verdict = terminal.choice("Does the answer pass or fail? (p/f) ", keys="pf", default="p")
        draft = kept(examples=(*draft.examples, _example(terminal, "pass" if verdict == "p" else "fail")))
    return kept(agreed=True)


def _drafted(draft: Draft, terminal: Terminal) -> tuple[Example, ...]:
    """The examples so far that the person keeps."""
    left = []
    for number, example in enumerate(draft.examples, start=1):
        terminal.say(f"\nExample {number} of {len(draft.examples)}: an answer that {_VERBS[example.verdict]}")
        terminal.show(Question=example.question, Answer=example.answer, Why=example.why)
        if terminal.choice("k: keep, d: drop (Enter: k) ", keys="kd", default="k") == "k":
            left.append(example)
    return tuple(left)


def _lacking(examples: tuple[Example, ...]) -> str:
    """The verdict that an example is needed of; empty where there are enough."""
    verdicts = [example.verdict for example in examples]
    for verdict in ("pass", "fail"):
        if verdict not in verdicts:
            return verdict
    return "" if len(examples) >= _EXAMPLES else "pass"


def _example(terminal: Terminal, verdict: str) -> Example:
    return Example.model_validate(
        {
            "question": terminal.text("Question"),
            "answer": terminal.text("Answer"),
            "why": terminal.text(f"Why it {_VERBS[verdict]}"),
            "verdict": verdict,
        }
    )
