"""Shared texts that stand for a task's private ones: made once under differential privacy, then shared as any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sealign.alignment import PublicSet
from sealign.defaults import MAX_EXAMPLES
from sealign.encoders import EncoderSettings
from sealign.errors import InvalidInputError
from sealign.synthetic import (
    Candidates,
    Evolution,
    PrivacyLoss,
    VotingRun,
    Writer,
    noise_scale,
    privacy_loss,
    require_opendp,
)
from sealign_server.ledger import Ledger, PrivateVotes
from sealign_server.store import SharedExamples, SiloStore, Synthetic
from sealign_server.training.embedding import embedded, silo_encoder
from sealign_server.training.tasks import Steps, silent


@dataclass(frozen=True)
class Synthesis:
    """What is to be made.

    Attributes:
        count: texts, 128 at most.
        loss: of one training text, at most.
        rounds: of votes.
        public: candidates, which also lead a model.
        model: a local causal language model that writes; None where public texts are shared themselves.
        tokens: maximum tokens that the model writes for a text.
        seed: of sampling, which protects nothing.
    """

    count: int
    loss: PrivacyLoss
    rounds: int
    public: PublicSet
    model: EncoderSettings | None = None
    tokens: int = 48
    seed: int = 0

    def require_possible(self, texts: int) -> None:
        """Refuse what can be refused before a model is loaded.

        Raises:
            InvalidInputError: too many texts, a delta too large for so many private texts, or no OpenDP.
        """
        require_opendp()
        if not 0 < self.count <= MAX_EXAMPLES:
            raise InvalidInputError(f"{self.count} texts cannot be shared: clients accept 1 to {MAX_EXAMPLES}")
        if self.loss.delta * texts > 1:
            raise InvalidInputError(
                f"a delta of {self.loss.delta:g} is too large for {texts} texts: it would allow one of them to be "
                f"revealed. Give at most {1 / texts:.0e}."
            )


@dataclass(frozen=True)
class Synthesized:
    """Texts that were made and are shared from now on.

    Attributes:
        texts: distinct; fewer than wanted if a model wrote fewer.
        loss: of one training text in this run.
        total: in all runs of this task.
    """

    texts: tuple[str, ...]
    loss: PrivacyLoss
    total: PrivacyLoss


def synthesize(
    store: SiloStore, ledger: Ledger, task: str, texts: Sequence[str], wanted: Synthesis, steps: Steps = silent
) -> Synthesized:
    """Make texts that stand for a task's training texts, and put them in the place of what the task shares.

    Each distinct text votes once a round. The loss is recorded before the first vote.

    Args:
        store: the silo.
        ledger: counts what votes lose.
        task: that the texts are of.
        texts: that it was trained on.
        wanted: what is to be made.
        steps: shows the stages.

    Returns:
        What was made.

    Raises:
        NotFoundError: there is no such task.
        InvalidInputError: settings that do not fit, a model that cannot be loaded or writes nothing that is chosen.
        StorageError: the loss could not be recorded, or the texts not be written.
    """
    description = store.tasks.description(task)
    private = list(dict.fromkeys(texts))
    wanted.require_possible(len(private))
    scale = noise_scale(wanted.loss, wanted.rounds)
    with steps("embedding the task's texts", len(private)) as advance:
        rows = embedded(store, private, advance)
    with steps("embedding public texts", len(wanted.public)) as advance:
        pool = Candidates(wanted.public.texts, embedded(store, wanted.public.texts, advance))
    encoder = silo_encoder(store)
    evolution = Evolution(
        pool, encoder.encode, _writer(wanted, description), scale, wanted.rounds, wanted.count, seed=wanted.seed
    )
    votes, run = PrivateVotes(ledger), VotingRun(wanted.rounds, scale)
    votes.record(task, run)
    chosen = evolution.texts(rows, steps)
    loss = privacy_loss([run], wanted.loss.delta)
    made = Synthetic(
        epsilon=loss.epsilon,
        delta=loss.delta,
        rounds=run.rounds,
        scale=scale,
        model=None if wanted.model is None else wanted.model.model,
    )
    store.tasks.share(task, SharedExamples(chosen, encoder.encode(chosen), made))
    return Synthesized(chosen, loss, privacy_loss(votes.runs(task), wanted.loss.delta))


def _writer(wanted: Synthesis, description: str) -> Writer | None:
    if wanted.model is None:
        return None
    from sealign.synthetic.writing import CausalWriter

    return CausalWriter(wanted.model, description, wanted.tokens, wanted.seed)
