"""The draft of a policy: all that is known of it so far, in one file that is always whole."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ontopic.config.policy import Border, Example
from ontopic.data.synthetic import Marked, MarkedQuestion, MarkedRecord
from ontopic.errors import UserError
from ontopic.state.whole_file import whole_file


class Intent(BaseModel):
    """What questions of one kind are about.

    Attributes:
        name: as ``Question.intent``.
        about: in a sentence.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    in_scope: bool
    about: str


class Draft(BaseModel):
    """A policy and its data as far as they have come; what is empty is not there yet.

    Attributes:
        agreed: whether a person has agreed to what the policy says.
        description: what the person said of the subject, which an LLM drafts from.
        intents: what questions are asked for.
        asked: the keys of the prompts for questions and records that were answered.
        generated: whether all questions and records that an LLM was to write are there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    subject: str
    description: str = ""
    definition: str = ""
    border: Border | None = None
    refusal: str = ""
    examples: tuple[Example, ...] = ()
    agreed: bool = False
    intents: tuple[Intent, ...] = ()
    questions: tuple[MarkedQuestion, ...] = ()
    records: tuple[MarkedRecord, ...] = ()
    asked: tuple[str, ...] = ()
    generated: bool = False

    @property
    def unseen(self) -> int:
        """How many rows nobody has reviewed."""
        rows: list[Marked] = [*self.questions, *self.records]
        return sum(not row.reviewed for row in rows)


class DraftFile(BaseModel):
    """Where a draft is kept.

    Attributes:
        path: of the JSON file.
    """

    model_config = ConfigDict(frozen=True)
    path: Path

    def read(self) -> Draft | None:
        """The draft; ``None`` where there is none.

        Raises:
            UserError: it cannot be read.
        """
        try:
            return Draft.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise UserError(
                f"{self.path}: is no draft that this release can go on with (at {where or 'its start'}); mend it, or "
                "move it away to begin anew"
            ) from error

    def write(self, draft: Draft) -> None:
        """Keep the draft, whole and on the disk when the call returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(self.path) as part:
            part.write_text(draft.model_dump_json(indent=1), encoding="utf-8")

    def remove(self) -> None:
        """Forget the draft: what it held stands in the policy's files."""
        self.path.unlink(missing_ok=True)
