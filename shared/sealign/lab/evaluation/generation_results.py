"""What an evaluation has measured of pairs of causal models."""

from __future__ import annotations

from sealign.lab.evaluation.result import Result


class CausalResult(Result):
    """A causal model that took part.

    Attributes:
        name: in the spec.
        model: without where it lies.
        dimension: of a hidden state.
        vocabulary: outputs of its head.
        fingerprint: of weights and tokenizer.
    """

    name: str
    model: str
    dimension: int
    vocabulary: int
    fingerprint: str


class Prediction(Result):
    """What is predicted of the silo's tokens over the test texts, by its head from mapped states or otherwise.

    Attributes:
        top1: share of positions where the same token is likeliest as from the silo's own state.
        top5: share where the silo's likeliest token is among the five likeliest.
        perplexity: of the tokens that follow.
        divergence: mean Kullback-Leibler divergence from the silo's own distribution, nats a token.
    """

    top1: float
    top5: float
    perplexity: float
    divergence: float


class MixedPrediction(Prediction):
    """A mixture, at the client, of what the silo's head predicts and of the client's own.

    Attributes:
        weight: of the client's own, fitted on public positions.
    """

    weight: float


class Repetition(Result):
    """How greedy texts of one length repeat themselves, by the silo's own model and behind the map.

    Attributes:
        tokens: of a text, at most.
        texts: number of prompts.
        own_distinct, mapped_distinct: mean share of runs of four tokens that are distinct, by default sampling.
        own_loops, mapped_loops: texts with a loop, by default sampling.
        free_own_distinct, free_mapped_distinct: as above where any token may come.
        free_own_loops, free_mapped_loops: as above where any token may come.
    """

    tokens: int
    texts: int
    own_distinct: float
    mapped_distinct: float
    own_loops: int
    mapped_loops: int
    free_own_distinct: float
    free_mapped_distinct: float
    free_own_loops: int
    free_mapped_loops: int


class EncryptedPrediction(Result):
    """The same map and head through the encrypted path.

    Attributes:
        positions: test positions that were sent.
        agreement: share of them with the same likeliest token as in the clear.
        largest_error: of a logit.
        precision: promised for it.
        parameters: name of the parameter set.
    """

    positions: int
    agreement: float
    largest_error: float
    precision: float
    parameters: str


class Sample(Result):
    """How the silo's own model goes on from a prompt, and how its head does behind the client's model."""

    prompt: str
    own: str
    mapped: str


class GenerationResult(Result):
    """One pair of causal models.

    Attributes:
        name: of the pair.
        client, silo: the models.
        rows: positions aligned over.
        epochs: of refinement.
        positions: test positions with a token that follows.
        explained_variance: of the silo's states, by ridge, over held-out public positions.
        own_perplexity: of the tokens that follow, by the silo's own states.
        own_agreement: share of positions where the two models, unaligned, find the same text likeliest.
        jaccard: of the two vocabularies.
        exact_match: share of the silo's tokens that the client's tokenizer cuts exactly alike.
        boundary_match: share of them at whose end one of the client's tokens ends.
        ridge: the map that ridge regression gives.
        refined: that map refined by divergence; None without epochs.
        control: the client's own next-token distribution rewritten as the silo's tokens: no silo, no map.
        mixture: of that with the last map.
        curve: perplexity by number of positions, for each map.
        encrypted: of the last map; None if it was not asked for.
        samples: by the last map.
        repetition: in such texts; None without prompts.
        seconds: by step, of one run; those of reading are of the first.
    """

    name: str
    client: CausalResult
    silo: CausalResult
    rows: int
    epochs: int
    positions: int
    explained_variance: float
    own_perplexity: float
    own_agreement: float
    jaccard: float
    exact_match: float
    boundary_match: float
    ridge: Prediction
    refined: Prediction | None
    control: Prediction
    mixture: MixedPrediction
    curve: dict[str, dict[int, float]]
    encrypted: EncryptedPrediction | None
    samples: tuple[Sample, ...]
    repetition: Repetition | None
    seconds: dict[str, float]

    @property
    def best(self) -> Prediction:
        """Of the last map."""
        return self.refined or self.ridge
