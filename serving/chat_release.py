"""What of a stream's choices goes out, and when: the guard may hold sentences back, and cut an answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from ontopic.models.answer import Generated, Piece
from serving.chat import Chat
from serving.chat_guard import Checked

# The end of a sentence, once it is clear that it is one: after "3." may come "5", and after "stop." a quotation mark.
_SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’)\]]*(?=\s)|\n|[。！？]")


@dataclass
class _Choice:
    """One choice on its way.

    Attributes:
        waiting: pieces that were not let out yet.
        text: all that was generated so far; ``out`` is what of it was let out, ``checked`` how much the guard has seen.
        tokens: of the answer so far.
        checking: whether the guard is asked just now.
        ended: whether it was generated to its end.
        seen: whether the guard has seen all of it.
        stopped: whether it was cut, or the refusal went out in its place.
    """

    waiting: list[Piece] = field(default_factory=list)
    text: str = ""
    out: str = ""
    checked: int = 0
    tokens: int = 0
    checking: bool = False
    ended: bool = False
    seen: bool = False
    stopped: bool = False

    def add(self, piece: Piece) -> None:
        self.waiting.append(piece)
        self.text += piece.text
        self.tokens = piece.completion_tokens

    def let_out(self, length: int) -> list[Piece]:
        """The waiting pieces that lie within the first so many characters."""
        free, end = 0, len(self.out)
        for piece in self.waiting:
            end += len(piece.text)
            if end > length:
                break
            free += 1
        given, self.waiting = self.waiting[:free], self.waiting[free:]
        self.out += "".join(piece.text for piece in given)
        return given

    def sentences(self) -> int:
        """How many characters its whole sentences have that the guard has not seen; 0 where there is none."""
        ends = [found.end() for found in _SENTENCE_END.finditer(self.text, self.checked)]
        return max((end for end in ends if self.text[:end].strip()), default=0)


class Release:
    """The pieces of a chat's choices as its client gets them, and the answers that these are.

    Where the guard holds nothing back, what it fails is cut at the end of the sentence that it was asked about, or a
    little later. Where it holds back, a sentence goes out once it and all before it have passed.
    """

    def __init__(self, chat: Chat) -> None:
        self._chat, self._guard = chat, chat.guard
        self._choices = [_Choice() for _ in chat.generations]
        self._checks: set[asyncio.Task[None]] = set()

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """Each choice's pieces as they may go out; it ends when all choices have."""
        looks = self._guard.served is not None and not self._guard.refuses(self._guard.of_question)
        left = len(self._choices)
        while left:
            i, event = await self._chat.pieces.get()
            choice = self._choices[i]
            if choice.stopped:
                continue  # what was under way when its generation was given up
            if isinstance(event, Checked):
                for piece in self._after_check(i, event):
                    yield i, piece
                if choice.stopped:
                    left -= 1
                    continue
            elif event is None:
                choice.ended = True
            else:
                choice.add(event)
            if not self._guard.holds_back or not looks:
                for piece in choice.let_out(len(choice.text)):
                    yield i, piece
            if looks and not choice.checking and not choice.seen:
                self._check(i)
            if choice.ended and not choice.checking:
                left -= 1

    async def answers(self) -> list[Generated]:
        """The answers that the client got, once all pieces have gone out.

        Raises:
            RequestError: the model failed.
        """
        whole = await self._chat.answers([not choice.stopped for choice in self._choices])
        for i, (choice, generation) in enumerate(zip(self._choices, self._chat.generations, strict=True)):
            if choice.stopped:
                whole.insert(i, Generated(choice.out, len(generation.ids), choice.tokens, "content_filter"))
        return whole

    def _check(self, i: int) -> None:
        """Ask the guard of a choice's new sentences, or, at its end, of all of it."""
        choice = self._choices[i]
        length = len(choice.text) if choice.ended else choice.sentences() if self._guard.cuts else 0
        if not length and not choice.ended:
            return
        choice.checking = True
        task = asyncio.create_task(self._ask(i, choice.text[:length], whole=choice.ended))
        self._checks.add(task)  # asyncio itself holds a task only weakly
        task.add_done_callback(self._checks.discard)

    async def _ask(self, i: int, text: str, *, whole: bool) -> None:
        decision = await self._guard.after(text, whole=whole)
        self._chat.pieces.put_nowait((i, Checked(len(text), whole, decision)))

    def _after_check(self, i: int, checked: Checked) -> list[Piece]:
        """What goes out after the guard has decided."""
        choice, decision = self._choices[i], checked.decision
        choice.checking, choice.seen, choice.checked = False, checked.whole, checked.length
        self._chat.decisions[i] = decision
        if decision is None or not self._guard.refuses(decision):
            return choice.let_out(checked.length)
        self._chat.generations[i].done.cancel()
        choice.stopped = True
        refused = [] if choice.out else [Piece(self._guard.refusal, choice.tokens)]
        said = choice.out or self._guard.refusal
        withheld = choice.text if choice.text != said else ""
        self._chat.decisions[i] = decision.model_copy(update={"withheld": withheld})
        choice.out = said
        return refused
