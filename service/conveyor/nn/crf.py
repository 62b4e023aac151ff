"""A linear-chain conditional random field (Lafferty, McCallum & Pereira 2001) over the scores of a tagger."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["LinearChainCRF"]

# Segments cost tags³ a step where the plain recursion costs tags²: with many tags they are no gain.
_MOST_TAGS_IN_SEGMENTS = 16
# The logarithm of what cannot be; infinity would turn differences into NaN.
_NEVER = -1e30


class LinearChainCRF(nn.Module):
    """Scores whole tag paths, so that neighbouring tags agree.

    The score of a path y over emissions P is s(y) = b[y_1] + sum_t P[t, y_t] + sum_t A[y_t, y_{t+1}] + e[y_n], its
    probability exp(s(y)) over the sum of all paths' (Lample et al. 2016, section 2.2, with b and e for their begin and
    end tags). b is `start`, e is `end`, A is `transitions` [from, to]. All start at zero: no preference.

    The recursions subtract each step's highest score, so rows of any length keep float32's precision; sums that only
    a likelihood needs are kept apart. A row without steps has one path, the empty one.
    """

    def __init__(self, num_tags: int) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.zeros(num_tags))
        self.end = nn.Parameter(torch.zeros(num_tags))
        self.transitions = nn.Parameter(torch.zeros(num_tags, num_tags))

    def log_likelihood(self, emissions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """The log-probability of each row's tags, by the forward algorithm.

        Args:
            emissions: float32 [rows, steps, tags], anything finite past a row's length.
            tags: int64 [rows, steps], anything past a row's length.
            lengths: int64 [rows].

        Returns:
            [rows], zero for a row without steps.
        """
        rows, steps, _ = emissions.shape
        if steps == 0:
            return emissions.new_zeros(rows)
        inside = _inside(steps, lengths)
        scores = self.start + emissions[:, 0]
        subtracted = emissions.new_zeros(rows)
        for step in range(1, steps):
            following = torch.logsumexp(scores[:, :, None] + self.transitions, dim=1) + emissions[:, step]
            highest = following.detach().amax(dim=1)
            scores = torch.where(inside[:, step, None], following - highest[:, None], scores)
            subtracted = subtracted + torch.where(inside[:, step], highest, 0.0)
        log_partition = torch.logsumexp(scores + self.end, dim=1) + subtracted
        return torch.where(lengths > 0, self._path_score(emissions, tags, lengths) - log_partition, 0.0)

    @torch.no_grad()
    def decode(self, emissions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The most probable path of each row (Viterbi), and how probable each of its tags is at its step.

        Args:
            emissions: float32 [rows, steps, tags], anything past a row's length.
            lengths: int64 [rows].

        Returns:
            tags: int64 [rows, steps], zero past a row's length.
            marginals: float32 [rows, steps], P(y_t = tags[t]) over all paths; meaningless past a row's length.
        """
        if emissions.shape[1] == 0:
            return emissions.new_zeros(emissions.shape[:2], dtype=torch.int64), emissions.new_zeros(emissions.shape[:2])
        tags = self._best_path(emissions, lengths)
        return tags, self.marginals(emissions, lengths).gather(2, tags[..., None])[..., 0]

    @torch.no_grad()
    def marginals(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        """P(y_t = k) for every tag k, by the forward-backward algorithm: [rows, steps, tags], one step at least.

        Shapes as in `decode`; meaningless past a row's length.
        """
        _, steps, _ = emissions.shape
        inside = _inside(steps, lengths)
        log_marginals = torch.empty_like(emissions)
        log_marginals[:, 0] = forward = self.start + emissions[:, 0]
        for step in range(1, steps):
            forward = torch.logsumexp(forward[:, :, None] + self.transitions, dim=1) + emissions[:, step]
            forward = forward - forward.amax(dim=1, keepdim=True)
            log_marginals[:, step] = forward
        backward = self.end.expand_as(emissions[:, 0])
        log_marginals[:, -1] += backward
        for step in range(steps - 2, -1, -1):
            ahead = (emissions[:, step + 1] + backward)[:, None, :]
            before = torch.logsumexp(self.transitions + ahead, dim=2)
            before = before - before.amax(dim=1, keepdim=True)
            # a row's last step is followed by the end alone, and so is, harmlessly, its padding
            backward = torch.where(inside[:, step + 1, None], before, self.end)
            log_marginals[:, step] += backward
        return torch.softmax(log_marginals, dim=2)

    @torch.no_grad()
    def decode_long(self, emissions: Tensor) -> tuple[Tensor, Tensor]:
        """`decode` for one long row, in about 3 √steps vectorised steps instead of one for each step of the row.

        Args:
            emissions: float32 [steps, tags], one step at least.

        Returns:
            tags: int64 [steps].
            marginals: float32 [steps].
        """
        if emissions.shape[1] > _MOST_TAGS_IN_SEGMENTS:
            tags, marginals = self.decode(emissions[None], torch.tensor([len(emissions)], device=emissions.device))
            return tags[0], marginals[0]
        best = _scan(emissions, self.start, self.transitions, torch.amax)
        # pointers[t, k]: the tag before step t + 1 on the best path to tag k there.
        pointers = (best[:-1, :, None] + self.transitions).argmax(dim=1).tolist()
        path = [int((best[-1] + self.end).argmax())]
        for came_from in reversed(pointers):
            path.append(came_from[path[-1]])
        tags = torch.tensor(path[::-1], device=emissions.device)
        ahead = _scan(emissions, self.start, self.transitions, torch.logsumexp)
        # Read from its end, with the transitions turned round, the same recursion gives the other half.
        behind = _scan(emissions.flip(0), self.end, self.transitions.T, torch.logsumexp).flip(0)
        marginals = torch.softmax(ahead + behind - emissions, dim=1)
        return tags, marginals.gather(1, tags[:, None])[:, 0]

    def _best_path(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        rows, steps, num_tags = emissions.shape
        inside = _inside(steps, lengths)
        stay = torch.arange(num_tags, device=emissions.device, dtype=torch.int64)
        came_from = torch.empty(steps, rows, num_tags, device=emissions.device, dtype=torch.int16)
        scores = self.start + emissions[:, 0]
        for step in range(1, steps):
            values, pointers = (scores[:, :, None] + self.transitions).max(dim=1)
            values = values + emissions[:, step]
            values = values - values.amax(dim=1, keepdim=True)
            scores = torch.where(inside[:, step, None], values, scores)
            came_from[step] = torch.where(inside[:, step, None], pointers, stay)
        tag = (scores + self.end).argmax(dim=1, keepdim=True)
        path = torch.empty(steps, rows, 1, device=emissions.device, dtype=torch.int64)
        for step in range(steps - 1, 0, -1):
            path[step] = tag
            tag = came_from[step].gather(1, tag).long()
        path[0] = tag
        return torch.where(inside, path[..., 0].T, 0)

    def _path_score(self, emissions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        inside = _inside(emissions.shape[1], lengths)
        tags = torch.where(inside, tags, 0)
        emitted = torch.where(inside, emissions.gather(2, tags[..., None])[..., 0], 0.0).sum(dim=1)
        moved = torch.where(inside[:, 1:], self.transitions[tags[:, :-1], tags[:, 1:]], 0.0).sum(dim=1)
        last = tags.gather(1, (lengths - 1).clamp(min=0)[:, None])[:, 0]
        return self.start[tags[:, 0]] + emitted + moved + self.end[last]


def _scan(emissions: Tensor, first: Tensor, transitions: Tensor, reduce: Callable[..., Tensor]) -> Tensor:
    """The forward recursion x_t[j] = reduce_i(x_{t-1}[i] + A[i, j]) + P[t, j] with x_0 = first + P[0], up to a constant
    in each step: [steps, tags].

    The steps are divided into segments. What a whole segment does to any x is a matrix, found for all segments at
    once; one pass over these gives x at the beginning of each, and then all segments are run at once again (a blocked
    parallel scan: Blelloch 1990, "Prefix sums and their applications").
    """
    steps, num_tags = emissions.shape
    length = max(math.isqrt(steps), 1)
    segments = -(-(steps - 1) // length)
    padded = emissions.new_zeros(segments * length, num_tags)
    padded[: steps - 1] = emissions[1:]
    pieces = padded.view(segments, length, num_tags)

    def step(x: Tensor, position: int) -> Tensor:
        """x: [segments, …, tags], one step on."""
        moved = reduce(x[..., :, None] + transitions, dim=-2)
        moved = moved + pieces[:, position].reshape(segments, *[1] * (x.ndim - 2), num_tags)
        return moved - moved.amax(dim=tuple(range(1, x.ndim)), keepdim=True)

    begin = first + emissions[0]
    if segments == 0:
        return begin[None]
    whole = torch.full((segments, num_tags, num_tags), _NEVER, dtype=emissions.dtype, device=emissions.device)
    whole.diagonal(dim1=1, dim2=2).zero_()
    for position in range(length):
        whole = step(whole, position)
    begins = [begin - begin.amax()]
    for segment in whole[:-1]:
        after = reduce(begins[-1][:, None] + segment, dim=0)
        begins.append(after - after.amax())
    x = torch.stack(begins)
    found = torch.empty_like(pieces)
    for position in range(length):
        found[:, position] = x = step(x, position)
    return torch.cat([begin[None], found.reshape(-1, num_tags)[: steps - 1]])


def _inside(steps: int, lengths: Tensor) -> Tensor:
    """Which steps belong to their row: bool [rows, steps]."""
    return torch.arange(steps, device=lengths.device)[None, :] < lengths[:, None]
