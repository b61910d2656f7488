"""The supervised contrastive loss, and mixing of samples."""

import torch
from torch import Tensor


def supervised_contrastive_loss(vectors: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Equation 2 of Khosla et al. (2020), averaged over the anchors that have a positive; 0 if none has.

    For an anchor i with positives P(i), the other samples of its label, and A(i), all other samples:
    - 1/|P(i)| sum over p in P(i) of log(exp(z_i·z_p / t) / sum over a in A(i) of exp(z_i·z_a / t)).

    Args:
        vectors: z, unit vectors [B,D].
        labels: [B].
        temperature: t.
    """
    own = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    similarity = (vectors @ vectors.T / temperature).masked_fill(own, -torch.inf)
    positive = (labels[:, None] == labels) & ~own
    # a lone sample has no other to be compared with: its row is -inf alone
    log_share = similarity - similarity.logsumexp(dim=1, keepdim=True)
    count = positive.sum(dim=1)
    anchors = torch.where(positive, log_share, 0.0).sum(dim=1) / count.clamp(min=1)
    return -anchors.sum() / (count > 0).sum().clamp(min=1)


def mix(values: Tensor, present: Tensor, partner: Tensor, share: float) -> Tensor:
    """``share`` of each sample plus the rest of its partner, [B,...]; samples as they are where one lacks it.

    Args:
        values: one input of all samples.
        present: bool [B]: the samples that have it.
        partner: int64 [B]: the place of each sample's partner.
        share: 0 to 1.
    """
    both = (present & present[partner]).view(-1, *[1] * (values.ndim - 1))
    return torch.where(both, share * values + (1 - share) * values[partner], values)
