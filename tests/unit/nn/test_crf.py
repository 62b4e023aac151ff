"""The CRF equals a sum over all paths, written out."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from conveyor.nn.crf import LinearChainCRF

NUM_TAGS = 3


def make_crf(seed: int, dtype: torch.dtype = torch.float64) -> LinearChainCRF:
    torch.manual_seed(seed)
    crf = LinearChainCRF(NUM_TAGS).to(dtype)
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.normal_(std=2.0)
    return crf


def path_probabilities(crf: LinearChainCRF, emissions: Tensor) -> dict[tuple[int, ...], float]:
    """The probability of every path over [steps, tags], by definition."""
    scores = {}
    for path in itertools.product(range(NUM_TAGS), repeat=len(emissions)):
        score = sum(emissions[step, tag] for step, tag in enumerate(path))
        score = score + sum(crf.transitions[a, b] for a, b in itertools.pairwise(path))
        scores[path] = score + crf.start[path[0]] + crf.end[path[-1]]
    log_partition = torch.logsumexp(torch.stack(list(scores.values())), dim=0)
    return {path: (score - log_partition).exp().item() for path, score in scores.items()}


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(0, 5), min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_equals_enumeration(lengths: list[int], seed: int) -> None:
    """Likelihoods, best paths and marginals equal those of all paths enumerated, whatever lengths stand together."""
    crf = make_crf(seed)
    emissions = 2 * torch.randn(len(lengths), max(lengths), NUM_TAGS, dtype=torch.float64)
    gold = torch.randint(0, NUM_TAGS, emissions.shape[:2])

    log_likelihood = crf.log_likelihood(emissions, gold, torch.tensor(lengths))
    tags, marginals = crf.decode(emissions, torch.tensor(lengths))

    for row, length in enumerate(lengths):
        if length == 0:
            assert 0.0 == log_likelihood[row].item()
            continue
        expected = path_probabilities(crf, emissions[row, :length])
        best = max(expected, key=expected.__getitem__)
        of_best_tags = [
            sum(probability for path, probability in expected.items() if path[step] == tag)
            for step, tag in enumerate(best)
        ]
        gold_path = tuple(gold[row, :length].tolist())
        assert pytest.approx(expected[gold_path], abs=1e-9) == log_likelihood[row].exp().item()
        assert best == tuple(tags[row, :length].tolist())
        assert pytest.approx(of_best_tags, abs=1e-9) == marginals[row, :length].tolist()


def test_marginals_of_all_tags_equal_enumeration() -> None:
    """P(y_t = k) is the sum of the probabilities of the paths through k, for every k."""
    crf = make_crf(0)
    emissions = torch.randn(1, 4, NUM_TAGS, dtype=torch.float64)
    expected = torch.zeros(4, NUM_TAGS, dtype=torch.float64)
    for path, probability in path_probabilities(crf, emissions[0]).items():
        for step, tag in enumerate(path):
            expected[step, tag] += probability

    torch.testing.assert_close(crf.marginals(emissions, torch.tensor([4]))[0], expected)


def test_padding_does_not_matter() -> None:
    """Tags and scores of a row are the same, bit for bit, alone and among longer rows."""
    crf = make_crf(1, torch.float32)
    emissions, lengths = torch.randn(4, 9, NUM_TAGS), torch.tensor([1, 3, 9, 0])
    batch_tags, batch_marginals = crf.decode(emissions, lengths)

    for row, length in enumerate([1, 3, 9]):
        tags, marginals = crf.decode(emissions[row : row + 1, :length], lengths[row : row + 1])
        assert torch.equal(tags[0], batch_tags[row, :length])
        assert torch.equal(marginals[0], batch_marginals[row, :length])


def test_gradient_of_the_likelihood_is_observed_minus_expected() -> None:
    """The gradient by an emission is one for the gold tag less the marginal, and zero past a row's length."""
    crf = make_crf(2)
    emissions = torch.randn(2, 5, NUM_TAGS, dtype=torch.float64, requires_grad=True)
    lengths, gold = torch.tensor([5, 2]), torch.randint(0, NUM_TAGS, (2, 5))
    observed = torch.nn.functional.one_hot(gold, NUM_TAGS).double()
    expected = observed - crf.marginals(emissions, lengths)
    expected[1, 2:] = 0

    crf.log_likelihood(emissions, gold, lengths).sum().backward()

    torch.testing.assert_close(emissions.grad, expected)


def test_long_rows_keep_their_precision() -> None:
    """Three thousand steps in float32 give the path and, to 1e-4, the marginals of float64."""
    crf = make_crf(3)
    emissions, lengths = 5 + torch.randn(1, 3_000, NUM_TAGS, dtype=torch.float64), torch.tensor([3_000])
    expected_tags, expected_marginals = crf.decode(emissions, lengths)

    tags, marginals = crf.float().decode(emissions.float(), lengths)

    assert torch.equal(expected_tags, tags)
    torch.testing.assert_close(marginals.double(), expected_marginals, rtol=0, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 16, 17, 50, 403])
def test_a_long_row_decodes_to_the_same_path_and_marginals(steps: int) -> None:
    """Segments run side by side give what the plain recursion gives, for any number of steps."""
    torch.manual_seed(steps)
    crf = LinearChainCRF(5)
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter)
    emissions = 3 * torch.randn(steps, 5)
    tags, marginals = crf.decode(emissions[None], torch.tensor([steps]))
    long_tags, long_marginals = crf.decode_long(emissions)

    torch.testing.assert_close(long_tags, tags[0])
    torch.testing.assert_close(long_marginals, marginals[0], rtol=0, atol=1e-5)


def test_many_tags_decode_alike_too() -> None:
    """Beyond the number of tags at which segments pay, a long row takes the plain recursion."""
    torch.manual_seed(0)
    crf = LinearChainCRF(20)
    emissions = torch.randn(30, 20)
    tags, _ = crf.decode(emissions[None], torch.tensor([30]))
    torch.testing.assert_close(crf.decode_long(emissions)[0], tags[0])
