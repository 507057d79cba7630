"""What of a text is the reply: without the reasoning that a model wrote before it."""

from __future__ import annotations

import json
import re

_TAGS = "think|thinking|thought|thoughts|reasoning|reason|reflection|analysis|scratchpad|seed:think|antthinking"
# Beside the tags: Magistral, Kimi, OpenThinker, Command A, Gemma.
_OPENING = re.compile(
    rf"<\s*(?:{_TAGS})\b[^<>/]*>|\[THINK\]|◁think▷|<\|begin_of_thought\|>|<\|START_THINKING\|>|<\|channel>", re.I
)
_CLOSING = re.compile(
    rf"<\s*/\s*(?:{_TAGS})\s*>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|<\|END_THINKING\|>|<channel\|>", re.I
)
# gpt-oss (the harmony format): channels, of which only ``final`` is for the reader.
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>")
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start)\|>")
_BARE_CHANNELS = ("analysis", "assistantfinal")  # the same, where a server has dropped the special tokens
_IN_WORDS = ("here is my thought process:", "here is my response:")  # Granite
_WRAPPED = re.compile(
    r"<(answer|response|final|final_answer|output|reply)>(?P<tagged>.*?)(?:</\1>)?\Z"
    r"|<\|(?:START_RESPONSE|begin_of_solution|begin_of_box)\|>(?P<marked>.*?)"
    r"(?:<\|(?:END_RESPONSE|end_of_solution|end_of_box)\|>)?\Z",
    re.I | re.S,
)
_LAST_TOKENS = re.compile(
    r"(?:\s*(?:<\|(?:im_end|eot_id|eom_id|endoftext|end_of_text|end|return)\|>|</s>|<eos>|<end_of_turn>))+\s*\Z"
)


def without_reasoning(text: str) -> str | None:
    """The reply in a text, without the reasoning before it and without tags and special tokens around it.

    What stands up to the last closing tag is reasoning. A text that is one JSON object holds none.

    Returns:
        The reply, stripped; empty where nothing follows the reasoning, ``None`` where that does not end.
    """
    text = text.strip()
    if _is_object(text):
        return text
    reply: str | None = _LAST_TOKENS.sub("", text)
    for step in (_last_channel, _after_bare_channel, _after_words, _after_tags):
        if reply is None:
            return None
        reply = step(reply)
    if reply is None:
        return None
    reply = _LAST_TOKENS.sub("", reply).strip()
    wrapped = _WRAPPED.match(reply)
    return (wrapped["tagged"] or wrapped["marked"] or "").strip() if wrapped else reply


def _is_object(text: str) -> bool:
    if not text.startswith("{"):
        return False
    try:
        return isinstance(json.loads(text, strict=False), dict)
    except (ValueError, RecursionError):
        return False


def _last_channel(text: str) -> str | None:
    if "<|channel|>" not in text:
        return text
    channels = list(_CHANNEL.finditer(text))
    if not channels or channels[-1][1] != "final":
        return None
    return _CHANNEL_END.split(text[channels[-1].end() :], maxsplit=1)[0]


def _after_bare_channel(text: str) -> str | None:
    first, last = _BARE_CHANNELS
    if not text.startswith(first):
        return text
    if last in text:
        return text.rpartition(last)[2]
    return None if text[len(first) :][:1].isupper() else text


def _after_words(text: str) -> str | None:
    first, last = _IN_WORDS
    if not text.lower().startswith(first):
        return text
    place = text.lower().rfind(last)
    return None if place == -1 else text[place + len(last) :]


def _after_tags(text: str) -> str | None:
    ends = [match.end() for match in _CLOSING.finditer(text)]
    reply = text[ends[-1] :] if ends else text
    return None if _OPENING.search(reply) else reply
