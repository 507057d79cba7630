"""TRL's ORPO trainer with the prompt's work shared by the chosen and the rejected answer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from trl.experimental.orpo import ORPOTrainer


class SharedPromptORPOTrainer(ORPOTrainer):
    """ORPO (Hong et al. 2024, arXiv 2403.07691) on fewer tokens than ``ORPOTrainer``.

    The stock trainer runs prompt + chosen and prompt + rejected as two padded sequences and computes logits for every
    position. Here a pair is one sequence, prompt + chosen + rejected, in which the rejected answer attends to the
    prompt and to itself only, and logits are computed only where a label is.

    The likelihood term is the paper's: that of the chosen answer given the prompt, averaged over its tokens, then over
    pairs. TRL's covers the prompt too and averages over all tokens of a batch, which teaches a small model to write
    users' questions and lets a long answer outweigh a short refusal.

    Attributes:
        stock_likelihood: compute TRL's likelihood term instead; then the loss is that of ``ORPOTrainer``.
    """

    stock_likelihood = False

    def tokenize_row(self, feature: Any, model: Any = None) -> dict[str, Any]:
        """As the stock trainer, without the end-of-text token that it puts behind a rejected answer.

        Rejected answers are cut: the model would learn that no answer ends in mid-sentence, which it knows, and
        nothing of what sets the two answers apart.
        """
        row = super().tokenize_row(feature, model)
        for part in ("input_ids", "attention_mask", "labels"):
            row[f"rejected_{part}"] = row[f"rejected_{part}"][:-1]
        return row

    def concatenated_forward(self, model: Any, batch: dict[str, Any]) -> Any:
        """Log-probabilities of the answers of a batch of pairs, averaged over tokens.

        Returns:
            As the stock trainer: chosen and rejected log-probabilities, each of shape (pairs,), the logits at the
            chosen and at the rejected tokens, each of shape (tokens, vocabulary), and the negative log-likelihood.
        """
        ids, positions, allowed, source, target, row, kind = _pack(batch)
        if not self.stock_likelihood:
            answers = kind != _PROMPT
            source, target, row, kind = source[answers], target[answers], row[answers], kind[answers]
        device = self.accelerator.device
        causal = self.accelerator.unwrap_model(model).get_base_model()
        states = causal.get_decoder()(
            input_ids=ids.to(device),
            position_ids=positions.to(device),
            attention_mask=allowed.to(device),
            use_cache=False,
        ).last_hidden_state
        row, kind = row.to(device), kind.to(device)
        logits = causal.get_output_embeddings()(states[row, source.to(device)]).float()
        log_probs = logits.gather(1, target.to(device).unsqueeze(1)).squeeze(1) - logits.logsumexp(1)

        def mean_by_pair(of: int) -> Tensor:
            here = kind == of
            total = torch.zeros(len(ids), device=device).index_add(0, row[here], log_probs[here])
            return total / torch.zeros(len(ids), device=device).index_add(0, row[here], here[here].float())

        chosen, rejected = mean_by_pair(_CHOSEN), mean_by_pair(_REJECTED)
        likelihood = -log_probs[kind != _REJECTED].mean() if self.stock_likelihood else -chosen.mean()
        detached = logits.detach()
        return chosen, rejected, detached[kind == _CHOSEN], detached[kind == _REJECTED], likelihood


_PROMPT, _CHOSEN, _REJECTED = 0, 1, 2


def _pack(batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Pack each pair of a collated batch into one sequence.

    Returns:
        Token ids and positions, each of shape (pairs, longest); which keys each query sees, (pairs, 1, longest,
        longest); and for every labelled token the index it is predicted from, the token, its pair, and whether it
        belongs to the prompt, the chosen or the rejected answer.
    """
    rows = []
    for i in range(len(batch["chosen_input_ids"])):
        chosen = batch["chosen_input_ids"][i][batch["chosen_attention_mask"][i].bool()]
        rejected = batch["rejected_input_ids"][i][batch["rejected_attention_mask"][i].bool()]
        shared = len(chosen) - int((batch["chosen_labels"][i] != -100).sum())
        rows.append((chosen, rejected[len(rejected) - int((batch["rejected_labels"][i] != -100).sum()) :], shared))
    pairs, longest = len(rows), max(len(chosen) + len(rejected) for chosen, rejected, _ in rows)
    ids = torch.zeros(pairs, longest, dtype=torch.long)
    positions = torch.zeros(pairs, longest, dtype=torch.long)
    part = torch.full((pairs, longest), -1)
    source, target, row, kind = [], [], [], []
    for i, (chosen, rejected, shared) in enumerate(rows):
        n, m = len(chosen), len(rejected)
        ids[i, : n + m] = torch.cat([chosen, rejected])
        positions[i, :n] = torch.arange(n)
        positions[i, n : n + m] = torch.arange(shared, shared + m)
        part[i, :shared], part[i, shared:n], part[i, n : n + m] = _PROMPT, _CHOSEN, _REJECTED
        # The first rejected token follows the prompt, not the chosen answer.
        source.append(torch.cat([torch.arange(n - 1), torch.tensor([shared - 1]), torch.arange(n, n + m - 1)]))
        target.append(ids[i, 1 : n + m])
        row.append(torch.full((n + m - 1,), i))
        kind.append(part[i, 1 : n + m])
    earlier = torch.ones(longest, longest, dtype=torch.bool).tril()
    same = part.unsqueeze(2) == part.unsqueeze(1)
    allowed = earlier & (same | (part == _PROMPT).unsqueeze(1))
    return ids, positions, allowed.unsqueeze(1), torch.cat(source), torch.cat(target), torch.cat(row), torch.cat(kind)
