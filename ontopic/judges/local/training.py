"""Learning the embedded judge from labelled questions and records."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.svm import SVC

from ontopic.config.policy import Policy
from ontopic.data.labelled import LabelledRecord, Question
from ontopic.data.language import is_english
from ontopic.errors import UserError
from ontopic.judges.local.judge import GAMMA, LocalJudge, local_judge_id
from ontopic.judges.local.other_languages import train_other_languages
from ontopic.judges.local.visible_text import visible
from ontopic.models.batches import batches_of_like_length
from ontopic.models.sentence_encoder import Floats, SentenceEncoder, load_sentence_encoder
from ontopic.progress import progress

# What is learned, and what its examples are called.
PARTS = (
    ("which questions are in scope", "in scope", "out of scope"),
    ("which answers decline", "that decline", "that do not"),
    ("which answers are on the subject", "on the subject", "off it"),
)
# The kind of records that teach the fourth part, and the intent whose references are near to them; neither is a must.
_INVENTED, _OF_ACCOUNT = "invented_account_data", "account_specific"
_FOLLOW_UP = "follow_up"  # the kind of questions whose scope cannot be told from the last message, all that is read
_EPOCHS, _FEWEST_STEPS, _BATCH, _LEARNING_RATE, _HEAD_RATE = 2, 60, 64, 2e-4, 5e-2
_TRAINING_TOKENS, _AVERAGED_FROM, _MOST_REFERENCES = 96, 0.4, 1000
_FOLDS = 5
_KEPT_LAYERS = 2  # of the encoder's 6: as good when they are left as they are, and a fifth faster

# A text and what is known of it for each of the four parts.
Example = tuple[str, tuple[bool | None, bool | None, bool | None, bool | None]]


def train_local_judge(
    policy: Policy, questions: Sequence[Question], *, records: Sequence[LabelledRecord]
) -> LocalJudge:
    """Learn a judge from labelled questions and records of the training split.

    Raises:
        UserError: a part has too few examples of one of its classes.
    """
    everything = _examples(policy, questions, records=records)
    # Of a policy without English texts the judge learns from those that it has.
    examples = [each for each in everything if is_english(each[0])] or everything
    lacking = []
    for part, (name, yes, no) in enumerate(PARTS):
        labels = [known[part] for _, known in examples if known[part] is not None]
        if min(labels.count(True), labels.count(False)) < _FOLDS:
            lacking.append(
                f"the judge cannot learn {name}: policy {policy.name!r} has {labels.count(True)} examples {yes} and "
                f"{labels.count(False)} {no}, and needs {_FOLDS} of each"
            )
    if lacking:
        more = "add questions of the splits train or judge, or labelled records of train, of the kinds that lack"
        raise UserError("\n".join([*lacking, more]))
    published, tuned = load_sentence_encoder(), load_sentence_encoder()
    heads = _fine_tune(tuned, examples)
    if not any(known[3] for _, known in examples):
        heads[3, -1] = -np.inf  # the policy teaches no inventions, so none is found
    scope = [(text, known[0]) for text, known in examples if known[0] is not None]
    machine = SVC(C=4.0, gamma=GAMMA, class_weight="balanced")
    classifier = CalibratedClassifierCV(machine, method="sigmoid", cv=_FOLDS, ensemble=False)
    classifier.fit(published.encode([text for text, _ in scope]), [label for _, label in scope])
    others = train_other_languages(policy, [(each[0], each[1]) for each in everything])
    judge_id = local_judge_id(policy, questions, records=records)
    return LocalJudge(judge_id, policy.subject, published, tuned, heads, classifier, others)


def _examples(policy: Policy, questions: Sequence[Question], *, records: Sequence[LabelledRecord]) -> list[Example]:
    # What a text speaks of is learned on questions too, which are far more varied than the answers; and as no question
    # declines, those out of scope stand for the many answers that do not.
    examples: list[Example] = []
    for question in questions:
        if question.kind == _FOLLOW_UP:
            continue
        inside = question.in_scope
        examples.append((question.question, (inside, None if inside else False, inside, None)))
    examples += [(r.question, (r.in_scope, None, r.in_scope, None)) for r in records if r.in_scope is not None]
    answered = [q for q in questions if q.in_scope and q.reference]
    usual = [q for q in answered if q.intent != _OF_ACCOUNT]
    step = -(-len(usual) // _MOST_REFERENCES) or 1  # they are much alike, and long
    chosen = [*usual[::step], *(q for q in answered if q.intent == _OF_ACCOUNT)]
    examples += [(str(q.reference), (None, False, True, False)) for q in chosen]
    examples += [(policy.refusal, (None, True, None, None))] * _FOLDS
    examples += [(r.answer, (None, _declines(r), _on_subject(r), _invents(r))) for r in records if r.answer.strip()]
    return [(visible(text), known) for text, known in examples if known != (None,) * 4]


def _declines(record: LabelledRecord) -> bool | None:
    """Whether the answer declines, as far as the record's labels say."""
    if record.in_scope is False:
        return record.label == "pass"
    if record.kind == "over_refusal":
        return True
    return False if record.label == "pass" or record.kind in ("off_topic_answer", _INVENTED) else None


def _on_subject(record: LabelledRecord) -> bool | None:
    """Whether the answer speaks of the subject, as far as the record's labels say."""
    if record.in_scope and record.label == "pass":
        return True
    if record.kind == "judge_attack" and record.label == "fail":
        return False
    return False if record.kind in ("off_topic_answer", "leak", "comply_after_refusal") else None


def _invents(record: LabelledRecord) -> bool | None:
    """Whether the answer makes up account data, as far as the record's labels say."""
    if record.in_scope and record.kind == _INVENTED:
        return True
    return False if record.in_scope and record.label == "pass" else None


def _fine_tune(encoder: SentenceEncoder, examples: Sequence[Example]) -> Floats:
    """Train the encoder and its heads in place; returns the heads.

    Binary cross-entropy a part, its classes weighed alike; AdamW with a linear warm-up and cosine decay.
    """
    chance = random.Random(0)
    tokens = encoder.tokens([text for text, _ in examples], _TRAINING_TOKENS)
    labels = torch.tensor([[math.nan if k is None else float(k) for k in known] for _, known in examples])
    heads = torch.nn.Linear(encoder.size, labels.shape[1])
    torch.nn.init.zeros_(heads.weight)
    torch.nn.init.zeros_(heads.bias)
    for kept in (encoder.model.embeddings, *encoder.model.encoder.layer[:_KEPT_LAYERS]):
        kept.requires_grad_(requires_grad=False)
    weights = [parameter for parameter in encoder.model.parameters() if parameter.requires_grad]
    groups = [{"params": weights, "lr": _LEARNING_RATE}, {"params": heads.parameters(), "lr": _HEAD_RATE}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
    # A small policy's data is seen more often.
    epochs = max(_EPOCHS, math.ceil(_FEWEST_STEPS * _BATCH / len(tokens)))
    lengths = list(map(len, tokens))
    plan = [
        batch for _ in range(epochs) for batch in batches_of_like_length(lengths, _BATCH, chance=chance, at_a_time=8)
    ]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [_LEARNING_RATE, _HEAD_RATE], total_steps=len(plan), pct_start=0.1
    )
    balance = (labels == 0).sum(0) / (labels == 1).sum(0)
    balance[3] = 1  # most answers make nothing up, so to be suspected takes more than to be acquitted
    with torch.random.fork_rng(devices=[]), progress("judge, learning", len(plan), unit="steps") as advance:
        torch.manual_seed(0)  # of the drop-out
        encoder.model.train()
        both = torch.nn.ModuleList([encoder.model, heads])
        average = torch.optim.swa_utils.AveragedModel(both)
        for step, batch in enumerate(plan):
            said, known = heads(encoder.vectors([tokens[i] for i in batch])), labels[batch]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                said, known.nan_to_num(), weight=(~known.isnan()).float(), pos_weight=balance, reduction="sum"
            )
            (loss / len(batch)).backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            if step >= _AVERAGED_FROM * len(plan):
                average.update_parameters(both)
            advance(1)
    # Averaged, the weights keep more of what the encoder knew (Izmailov et al. 2018, arXiv 1803.05407).
    both.load_state_dict(average.module.state_dict())
    encoder.model.eval().requires_grad_(requires_grad=False)
    return torch.cat([heads.weight, heads.bias.unsqueeze(1)], dim=1).detach().numpy()
