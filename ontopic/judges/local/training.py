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
from ontopic.data.labelled import LabelledRecord, Message, Question
from ontopic.data.language import is_english
from ontopic.errors import UserError
from ontopic.judges.local.conversation import last_turns
from ontopic.judges.local.examples import FOLDS, Example, as_read, in_english, labelled_examples, too_few_examples
from ontopic.judges.local.judge import GAMMA, LocalJudge, local_judge_id
from ontopic.judges.local.other_languages import train_other_languages
from ontopic.models.batches import batches_of_like_length
from ontopic.models.sentence_encoder import Floats, SentenceEncoder, load_sentence_encoder
from ontopic.progress import progress

_EPOCHS, _FEWEST_STEPS, _BATCH, _LEARNING_RATE, _HEAD_RATE = 2, 60, 64, 2e-4, 5e-2
_TRAINING_TOKENS, _AVERAGED_FROM = 96, 0.4
# So many batches are of like length: with fewer, more of a batch is padding (a quarter of it with 8, a 20th with 64).
_AT_A_TIME = 64
# Of the questions that stand alone, the share that is learned a second time behind another one, and beside another one.
_BEHIND, _BESIDE = 0.25, 0.15
_JOINTS = (" and ", ". And ", ", also ", ". Also, ", " & ", "? ", ". ", "\n", ", then ", " plus ")
_KEPT_LAYERS = 2  # of the encoder's 6: as good when they are left as they are, and a fifth faster


def train_local_judge(
    policy: Policy, questions: Sequence[Question], *, records: Sequence[LabelledRecord]
) -> LocalJudge:
    """Learn a judge from labelled questions and records of the training split.

    Raises:
        UserError: a part has too few examples of one of its classes.
    """
    everything = labelled_examples(policy, questions, records=records)
    examples = in_english(everything)
    if lacking := too_few_examples(policy, examples):
        more = "add questions of the splits train or judge, or labelled records of train, of the kinds that lack"
        raise UserError("\n".join([*lacking, more]))
    examples += as_read([*_changes_of_subject(policy, questions, records=records), *_two_part(questions)])
    published, tuned = load_sentence_encoder(), load_sentence_encoder()
    heads = _fine_tune(tuned, examples)
    if not any(example.known[3] for example in examples):
        heads[3, -1] = -np.inf  # the policy teaches no inventions, so none is found
    scope = [(text, known[0]) for text, known, context in examples if known[0] is not None and not context]
    machine = SVC(C=4.0, gamma=GAMMA, class_weight="balanced")
    classifier = CalibratedClassifierCV(machine, method="sigmoid", cv=FOLDS, ensemble=False)
    classifier.fit(published.encode([text for text, _ in scope]), [label for _, label in scope])
    others = train_other_languages(policy, [(text, known) for text, known, context in everything if not context])
    judge_id = local_judge_id(policy, questions, records=records)
    return LocalJudge(judge_id, policy.subject, published, tuned, heads, classifier, others)


def _changes_of_subject(
    policy: Policy, questions: Sequence[Question], *, records: Sequence[LabelledRecord]
) -> list[Example]:
    """Questions that stand alone, each behind some other question and its answer, which do not change their scope."""
    chance = random.Random(0)
    alone = _alone(questions)
    said = [(q.question, q.reference if q.in_scope else policy.refusal) for q in alone]
    said += [(record.question, record.answer) for record in records]
    examples = []
    for question in chance.sample(alone, int(_BEHIND * len(alone))):
        asked, answer = chance.choice(said)
        before = Message(role="user", content=asked), Message(role="assistant", content=answer or "")
        examples.append(Example(question.question, (question.in_scope, None, None, None), last_turns(before)))
    return examples


def _alone(questions: Sequence[Question]) -> list[Question]:
    return [question for question in questions if not question.history and is_english(question.question)]


def _two_part(questions: Sequence[Question]) -> list[Example]:
    """Questions that stand alone, each in one message with one out of scope, which does not change their scope."""
    chance = random.Random(0)
    alone = _alone(questions)
    others = [question.question for question in alone if not question.in_scope]
    examples = []
    for question in chance.sample(alone, int(_BESIDE * len(alone))) if others else ():
        parts = [question.question, chance.choice(others)]
        chance.shuffle(parts)
        text = chance.choice(_JOINTS).join([parts[0].rstrip(" .?!"), parts[1]])
        examples.append(Example(text, (question.in_scope, None, None, None)))
    return examples


def _fine_tune(encoder: SentenceEncoder, examples: Sequence[Example]) -> Floats:
    """Train the encoder and its heads in place; returns the heads.

    Binary cross-entropy a part, its classes weighed alike; AdamW with a linear warm-up and cosine decay.
    """
    chance = random.Random(0)
    tokens = encoder.tokens(
        [example.text for example in examples], _TRAINING_TOKENS, contexts=[example.context for example in examples]
    )
    labels = torch.tensor([[math.nan if k is None else float(k) for k in example.known] for example in examples])
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
    lengths = [len(each.ids) for each in tokens]
    plan = [
        batch
        for _ in range(epochs)
        for batch in batches_of_like_length(lengths, _BATCH, chance=chance, at_a_time=_AT_A_TIME)
    ]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [_LEARNING_RATE, _HEAD_RATE], total_steps=len(plan), pct_start=0.1
    )
    balance = (labels == 0).sum(0) / (labels == 1).sum(0)
    balance[3] = 1  # most answers make nothing up, so to be suspected takes more than to be acquitted
    with torch.random.fork_rng(devices=[]), progress("judge, learning", len(plan), unit="steps") as advance:
        torch.manual_seed(0)  # of the drop-out
        # Of the states between trained layers only: on attention it costs a sixth of the time and gains nothing, and
        # layers that do not learn need none.
        for layer in encoder.model.encoder.layer[_KEPT_LAYERS:]:
            layer.attention.output.dropout.train()
            layer.output.dropout.train()
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
