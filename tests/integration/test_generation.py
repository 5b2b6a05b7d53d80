"""Text generation with real processes, TLS and language models trained from scratch."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import grpc
import httpx
import numpy as np
import pytest

from sealign.encoders import EncoderSettings
from sealign.encoders.causal import CausalModel
from sealign.errors import (
    DecryptionError,
    InvalidInputError,
    NoMapError,
    NoPlanError,
    NotFoundError,
    PeerFailedError,
    UnavailableError,
)
from sealign.generation import Rewriting, mixed, token_counts
from sealign.generation.measures import log_softmax
from sealign.generation.repetition import distinct, has_loop
from sealign.generation.sampling import Sampler, Sampling
from sealign.generation.whitening import Whitening
from sealign.protocol import generation_space
from sealign.protocol.v1 import daemon_pb2 as pb
from sealign.protocol.v1.daemon_pb2_grpc import DaemonStub
from sealign_client import Client, Finish, GeneratedToken
from sealign_server.store import SiloStore
from tests.support.daemon import daemon_channel
from tests.support.generation import (
    PRECISION,
    TASK,
    ClearGenerator,
    align,
    chosen_otherwise,
    empty_silo,
    loaded,
    make_silo,
    model_name,
    own_silo,
    public_set,
)
from tests.support.processes import Server, command, serving
from tests.support.silo import Tls
from tests.support.small_lms import small_lm
from tests.support.wire import refused

PROMPT = "The film was"
SPACE = generation_space(TASK)


@pytest.fixture(scope="module")
def model() -> CausalModel:
    return loaded("one")


@pytest.fixture(scope="module")
def unaligned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A silo that nobody has aligned with by plain alignment, but for tests of just that."""
    directory = tmp_path_factory.mktemp("unaligned") / "silo"
    make_silo(directory)
    return directory


@pytest.fixture(scope="module")
def directory(model: CausalModel, tls: Tls, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An aligned silo. Copy it."""
    directory = tmp_path_factory.mktemp("generation") / "silo"
    align(make_silo(directory), model, tls.client.subject)
    return directory


@pytest.fixture(scope="module")
def silo(directory: Path, tls: Tls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("logs") / "silo.log"
    options = (*tls.serve_options, "--log-level", "debug", "--max-tokens", "250")
    with serving("sealign-server", "serve", directory, *options, log=log) as server:
        yield server


@pytest.fixture(scope="module")
def client(silo: Server, tls: Tls) -> Iterator[Client]:
    with Client(tls.client_settings(silo.port, model=model_name("one"))) as client:
        yield client


@pytest.fixture(scope="module")
def clear(directory: Path, model: CausalModel) -> ClearGenerator:
    return ClearGenerator.load(directory, model)


@pytest.fixture
def copy(directory: Path, tmp_path: Path) -> Path:
    """A silo of this test's own."""
    return Path(shutil.copytree(directory, tmp_path / "silo"))


def text_of(tokens: list[GeneratedToken]) -> str:
    return "".join(token.text for token in tokens)


def written(tokens: list[GeneratedToken]) -> str:
    """What the tokens say by the silo's tokenizer."""
    pieces = loaded("two").tokenizer.pieces
    return "".join(pieces[token.id] for token in tokens)


def test_card_tells_what_the_silo_writes(client: Client, model: CausalModel) -> None:
    (found,) = client.describe_generation()
    card = found.card
    assert (card.name, card.vocabulary, card.max_tokens) == (TASK, 1024, 250)
    assert card.plan is not None
    assert (card.plan.dimension, card.plan.outputs) == (model.card.dimension, 1024)
    assert card.plan.precision == PRECISION
    assert found.map is not None
    assert found.map.explained_variance > 0.4


def test_two_hundred_greedy_tokens_are_those_of_the_clear_computation(client: Client, clear: ClearGenerator) -> None:
    """The encrypted choice is the clear one but where the clear logits are nearer than twice the precision."""
    tokens = list(client.generate(PROMPT, max_tokens=200, alternatives=1))
    assert len(tokens) == 200
    assert text_of(tokens) == written(tokens)
    assert chosen_otherwise(clear, PROMPT, tokens) <= 20
    for token in tokens:
        ((likeliest, log_probability),) = token.alternatives
        assert log_probability >= token.log_probability
        assert likeliest != token.id or log_probability == token.log_probability
    assert tokens[-1].finish is Finish.LENGTH
    assert {token.finish for token in tokens[:-1]} == {None}


def test_sampling(client: Client) -> None:
    one = client.generate(
        PROMPT, max_tokens=8, sampling=Sampling(temperature=1, top_k=1, no_repeat_run=0), alternatives=2
    )
    for token in one:
        assert token.id == token.alternatives[0][0]
        assert token.alternatives[0][1] >= token.alternatives[1][1]
    warm = {
        text_of(list(client.generate(PROMPT, max_tokens=8, sampling=Sampling(temperature=1.5, seed=seed))))
        for seed in range(3)
    }
    assert len(warm) == 3
    penalised = list(client.generate(PROMPT, max_tokens=40, sampling=Sampling(repetition_penalty=10)))
    assert len({token.id for token in penalised}) > 35


def test_no_run_of_four_tokens_comes_twice_unless_it_may(client: Client) -> None:
    """Small models loop when the likeliest token is taken each time; the default does not let them."""
    guarded, free = (
        [token.id for token in client.generate(PROMPT, max_tokens=100, sampling=sampling)]
        for sampling in (None, Sampling(no_repeat_run=0))
    )
    assert distinct(guarded) == 1
    assert not has_loop(guarded)
    assert distinct(free) < 0.9


def test_a_stop_string_ends_before_it_comes(client: Client) -> None:
    tokens = list(client.generate(PROMPT, max_tokens=60, sampling=Sampling(stop=("e", "q"))))
    assert "e" not in text_of(tokens)
    assert (text_of(tokens) + "e").startswith(written(tokens)[: written(tokens).index("e") + 1])
    assert tokens[-1].finish is Finish.STOP


def test_the_silos_limit_and_the_models_window_end_a_generation(client: Client, tls: Tls, silo: Server) -> None:
    short = f"{model_name('one')}&max_length=64"
    with Client(tls.client_settings(silo.port, model=short)) as narrow:
        tokens = list(narrow.generate(PROMPT, max_tokens=200))
        assert tokens[-1].finish is Finish.WINDOW
        assert 40 < len(tokens) < 120  # of the silo's: the window counts the client's
        with pytest.raises(InvalidInputError, match="reads at most 64; shorten the prompt"):
            list(narrow.generate("a long prompt " * 40))
    tokens = list(client.generate(PROMPT, max_tokens=100_000, sampling=Sampling(temperature=1, top_p=0.9)))
    assert tokens[-1].finish in (Finish.LENGTH, Finish.END)
    assert len(tokens) <= 250


@pytest.mark.parametrize(
    ("prompt", "message"),
    [("", "one character or more"), (" \n ", "empty"), ("a\ud800b", "surrogate"), ("x" * 1_000_001, "characters")],
)
def test_prompts_that_nobody_can_read(client: Client, prompt: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        list(client.generate(prompt))


def test_special_tokens_in_a_prompt_are_text(client: Client, clear: ClearGenerator) -> None:
    prompt = "The film <|end|> was"
    (token,) = client.generate(prompt, max_tokens=1)
    tokenizer = loaded("two").tokenizer
    logits = np.where(tokenizer.allowed(1024), clear.logits(clear.model.session().advance(prompt)), -np.inf)
    assert logits.max() - logits[token.id] <= 2 * PRECISION
    assert not tokenizer.ends.intersection(tokenizer.encode(prompt).ids.tolist())


def test_unknown_tasks_and_numbers_of_tokens(client: Client) -> None:
    with pytest.raises(NotFoundError, match="generation tasks are: reviews"):
        list(client.generate(PROMPT, "poems"))
    with pytest.raises(InvalidInputError, match="least one new token"):
        list(client.generate(PROMPT, max_tokens=0))


def test_a_client_without_a_map_or_a_model(silo: Server, tls: Tls) -> None:
    with (
        Client(tls.client_settings(silo.port, model=model_name("three"))) as stranger,
        pytest.raises(NoMapError, match="sealign align --generation reviews"),
    ):
        list(stranger.generate(PROMPT))
    with pytest.raises(InvalidInputError, match="Name the local encoder"):
        Client(tls.client_settings(silo.port))


@pytest.mark.parametrize("sampling", [None, Sampling(temperature=2, top_k=5, seed=3)], ids=["greedy", "drawn"])
def test_generation_goes_on_when_the_silo_dies_between_two_tokens(
    copy: Path, tls: Tls, clear: ClearGenerator, sampling: Sampling | None, tmp_path: Path
) -> None:
    """And with the random numbers that would have come: the tokens are those of the clear computation, but for ties."""
    fine = ("--generation-precision", PRECISION / 2)  # at the precision itself there are more ties than a few
    with own_silo(copy, tls, tmp_path / "log", model_name("one"), *fine) as (silo, client):
        tokens = client.generate(PROMPT, max_tokens=14, sampling=sampling)
        begun = [next(tokens) for _ in range(4)]
        os.kill(silo.process.pid, signal.SIGKILL)
        silo.process.wait()
        rest: list[GeneratedToken] = []
        waiting = Thread(target=lambda: rest.extend(tokens))
        waiting.start()
        with own_silo(copy, tls, tmp_path / "second", model_name("one"), *fine, port=silo.port):
            waiting.join(timeout=60)
        assert len(begun + rest) == 14
        assert rest[-1].finish is Finish.LENGTH
        assert chosen_otherwise(clear, PROMPT, begun + rest, sampling) <= 3


def test_a_silo_that_stays_away_is_one_clear_error(copy: Path, tls: Tls, tmp_path: Path) -> None:
    with (
        serving("sealign-server", "serve", copy, *tls.serve_options, log=tmp_path / "log") as silo,
        Client(tls.client_settings(silo.port, model=model_name("one"), timeout=3.0)) as client,
    ):
        tokens = client.generate(PROMPT, max_tokens=10)
        next(tokens)
        silo.process.kill()
        with pytest.raises(UnavailableError, match="does not answer"):
            next(tokens)


def test_another_plan_between_two_tokens(copy: Path, tls: Tls, tmp_path: Path) -> None:
    """The client describes the task again and goes on under the new plan."""
    with own_silo(copy, tls, tmp_path / "log", model_name("one")) as (silo, client):
        tokens = client.generate(PROMPT, max_tokens=6)
        begun = [next(tokens) for _ in range(2)]
        before = client.describe_generation()[0].card
        port = silo.port
        silo.end()
        coarser = ("--generation-precision", 2 * PRECISION)
        with own_silo(copy, tls, tmp_path / "second", model_name("one"), *coarser, port=port) as (_, other):
            after = other.describe_generation()[0].card
            assert before.revision != after.revision
            assert len(begun + list(tokens)) == 6


class TestLogitsTooLarge:
    """For every parameter set, or for the range that one promises."""

    def test_no_parameter_set_holds_them(self, copy: Path, tls: Tls, tmp_path: Path) -> None:
        """The operator hears it when the silo starts, the client what it can do; nobody hears numbers of the other."""
        option = "--generation-precision"
        with own_silo(copy, tls, tmp_path / "log", model_name("one"), option, 1e-4) as (silo, client):
            silo.wait_for("generation task cannot be served", 2)
            heard = silo.events("generation task cannot be served")
            (record,) = SiloStore(copy).generation.space(TASK).map_records()
            assert {event["to"] for event in heard} == {record.card.id, public_set().digest}
            for use in (
                lambda: list(client.generate(PROMPT)),
                lambda: client.forecast([PROMPT]),
                lambda: client.align(public_set(), SPACE),
            ):
                with pytest.raises(NoPlanError, match="generation task reviews") as caught:
                    use()
                assert "silo's operator can tell from its log" in str(caught.value)
                assert not re.search(r"\d", str(caught.value).replace(loaded("one").card.name, ""))
            assert not silo.events("internal error")
        advised = re.search(
            r"serve with --generation-precision (\S+)$",
            next(event["reason"] for event in heard if event["to"] == record.card.id),
        )
        assert advised is not None
        with own_silo(copy, tls, tmp_path / "second", model_name("one"), option, advised[1]) as (_, client):
            assert len(list(client.generate(PROMPT, max_tokens=2))) == 2

    def test_the_operator_hears_it_when_the_head_is_kept(self, tmp_path: Path) -> None:
        """The task is kept: another precision may do."""
        from transformers import AutoModelForCausalLM

        directory, public = tmp_path / "silo", tmp_path / "public.txt"
        public.write_text("\n".join(" ".join(text.split()) for text in public_set(8).texts) + "\n")
        empty_silo(directory)
        shutil.copytree(small_lm("two"), tmp_path / "large")
        large = AutoModelForCausalLM.from_pretrained(tmp_path / "large")
        large.lm_head.weight.data *= 60
        large.save_pretrained(tmp_path / "large")
        options = ("--task", TASK, "--public", public)
        ran = command(
            "sealign-server", "generation", "add", directory, "--model", f"{tmp_path / 'large'}?device=cpu", *options
        )
        assert ran.returncode == 0, ran.stderr
        assert re.search("warning: generation task reviews .* serve with --generation-precision", ran.stderr)

    @pytest.mark.parametrize("far", [False, True])
    def test_a_state_beyond_the_promised_range_is_noticed(
        self, client: Client, clear: ClearGenerator, far: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A little beyond, or as far as states can go: one clear error, and what had come stands."""
        card = client.describe_generation()[0].card
        assert card.plan is not None
        columns = clear.map.weight @ clear.head.columns(slice(0, card.vocabulary))
        norms = np.linalg.norm(columns, axis=0)
        longest = card.plan.row_norm * columns[:, norms.argmax()] / norms.max()
        rows = [(share * longest).astype(np.float32) for share in np.linspace(0, 1, 200)]
        beyond = [row for row in rows if np.abs(clear.row_logits(row)).max() > card.plan.range + 2 * PRECISION]
        assert np.abs(clear.row_logits(beyond[-1])).max() > 2 * card.plan.range
        tokens = client.generate(PROMPT, max_tokens=8)
        begun = [next(tokens)]
        with monkeypatch.context() as patched:
            patched.setattr(CausalModel, "sent", lambda *_: beyond[-1 if far else 0][None])
            with pytest.raises(DecryptionError, match=r"Logits leave the ±\d+ that the silo promises .* task reviews"):
                next(tokens)
        chosen_otherwise(clear, PROMPT, begun)
        assert len(list(client.generate(PROMPT, max_tokens=3))) == 3


def assert_not_generated(directory: Path, tls: Tls, log: Path, reason: str, *, noticed: bool = True) -> None:
    """The silo's log has the reason, under the id that the client gets instead of it; and by itself, if noticed."""
    with own_silo(directory, tls, log, model_name("one")) as (silo, client):
        with pytest.raises(PeerFailedError, match="its log has the reason under id") as caught:
            list(client.generate(PROMPT, TASK))
        (event,) = [event for event in silo.events("internal error") if event["id"] in str(caught.value)]
        assert reason in event["reason"]
        assert reason not in str(caught.value)
        if noticed:
            silo.wait_for("generation task not read")


class TestDamage:
    """Files that do not belong together: refused by name, nothing generated."""

    def test_a_tokenizer_of_another_model(self, copy: Path, tls: Tls, tmp_path: Path) -> None:
        file = copy / "generation" / TASK / "tokenizer.json"
        file.write_bytes(loaded("three").tokenizer.to_bytes())
        assert_not_generated(copy, tls, tmp_path / "log", "tokenizer.json of task reviews is damaged", noticed=False)

    def test_a_vocabulary_of_another_size_than_the_head(self, copy: Path, tls: Tls, tmp_path: Path) -> None:
        file = copy / "generation" / TASK / "generation.json"
        file.write_text(file.read_text().replace('"vocabulary": 1024', '"vocabulary": 1023'))
        assert_not_generated(copy, tls, tmp_path / "log", "1024 outputs and its vocabulary 1023")

    def test_a_map_that_leads_to_another_model(self, copy: Path, tls: Tls, tmp_path: Path) -> None:
        """As when the silo's model, or its tokenizer, was exchanged after the map was learned."""
        file = copy / "generation" / TASK / "generation.json"
        fingerprint = loaded("two").card.fingerprint
        file.write_text(file.read_text().replace(fingerprint, "f" * 64))
        assert_not_generated(copy, tls, tmp_path / "log", "leads to another encoder")


def test_texts_are_not_logged(silo: Server, client: Client) -> None:
    list(client.generate("zygomorphic petunias", max_tokens=2))
    assert "zygomorphic" not in silo.log
    assert "petunias" not in silo.log


class TestAlignment:
    """Maps of states learned over the wire."""

    def test_other_tokenizers_meet_by_characters(self, unaligned: Path, tls: Tls, tmp_path: Path) -> None:
        """The client's model has a tokenizer of another kind; the silo's writes."""
        model = loaded("three")
        with own_silo(unaligned, tls, tmp_path / "log", model_name("three")) as (_, client):
            learned = client.align(public_set(), SPACE)
            (found,) = client.describe_generation()
            assert learned.rows == found.space.public_sets[0].rows > 5000
            assert learned.explained_variance > 0.3
            tokens = list(client.generate(PROMPT, max_tokens=20, sampling=Sampling(no_repeat_run=0)))
        clear = ClearGenerator.load(unaligned, model)
        tokenizer = loaded("two").tokenizer
        session, text = model.session(), PROMPT
        for token in tokens:
            logits = np.where(tokenizer.allowed(1024), clear.logits(session.advance(text)), -np.inf)
            assert logits.max() - logits[token.id] <= 2 * PRECISION
            text += tokenizer.pieces[token.id]

    def test_under_encryption_the_client_keeps_the_map(self, unaligned: Path, tls: Tls, tmp_path: Path) -> None:
        with (
            serving("sealign-server", "serve", unaligned, *tls.serve_options, log=tmp_path / "log") as silo,
            Client(tls.client_settings(silo.port, model=model_name("one"), map_directory=tmp_path / "maps")) as client,
        ):
            learned = client.align(public_set(), SPACE, mode="encrypted")
            assert learned.explained_variance > 0.4
            (found,) = client.describe_generation()
            assert found.card.plan is not None
            assert found.card.plan.dimension == loaded("two").card.dimension
            assert found.space.public_sets[0].releases_left == 0
            tokens = list(client.generate(PROMPT, max_tokens=20))
            assert len(tokens) == 20
        space = SiloStore(unaligned).generation.space(TASK)
        assert not space.map_records(loaded("one").card.fingerprint)
        assert len(list((tmp_path / "maps").glob("*.safetensors"))) == 1


def test_a_mixture_is_fitted_at_alignment_and_reported(
    copy: Path, tls: Tls, model: CausalModel, tmp_path: Path
) -> None:
    """Its weight comes from public positions; each token has the silo's own log-probability beside the mixture's."""
    with (
        serving("sealign-server", "serve", copy, *tls.serve_options, log=tmp_path / "log") as silo,
        Client(tls.client_settings(silo.port, model=model_name("one"), map_directory=tmp_path / "maps")) as client,
    ):
        with pytest.raises(InvalidInputError, match=r"no mixture for map .*: none was fitted"):
            list(client.generate(PROMPT, mixture=True))
        client.align(public_set(), SPACE, mixture_positions=24)
        (found,) = client.describe_generation()
        mixture = found.mixture
        assert mixture is not None
        assert mixture.positions == 24
        assert 0 < mixture.weight < 1
        assert mixture.perplexity <= min(mixture.silo_perplexity, mixture.own_perplexity) * 1.001
        tokens = list(client.generate(PROMPT, max_tokens=12, mixture=True, sampling=Sampling(no_repeat_run=0)))
        assert all(token.silo_log_probability is None for token in client.generate(PROMPT, max_tokens=2))
        options = (*tls.client_options(silo.port), "--model", model_name("one"), "--map-directory", tmp_path / "maps")
        listening = ("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
        told = command("sealign", "generate", PROMPT, "--max-tokens", 3, "--mixture", *options)
        assert told.returncode == 0, told.stderr
        assert re.search(r"mixture: perplexity of this text [\d.]+, by the silo alone [\d.]+", told.stderr)
        with (
            serving("sealign", "daemon", *options, *listening, log=tmp_path / "daemon.log") as daemon,
            daemon_channel(daemon) as channel,
        ):
            request = pb.GenerateTextRequest(prompt=PROMPT, max_tokens=2, mixture=True, no_repeat_run=0)
            streamed = list(DaemonStub(channel).GenerateText(request, timeout=60))
            started = daemon.events("serving")[0]
            body = {"prompt": PROMPT, "max_tokens": 2, "mixture": True, "temperature": 0, "logprobs": 1}
            headers = {"Authorization": f"Bearer {Path(started['token_file']).read_text().strip()}"}
            answer = httpx.post(f"{started['http']}/v1/completions", json=body, headers=headers, timeout=60).json()
        assert [token.HasField("silo_log_probability") for token in streamed] == [True, True]
        assert [token.id for token in streamed] == [token.id for token in tokens[:2]]
        assert answer["mixture"] is True
        assert answer["choices"][0]["text"] == "".join(token.text for token in tokens[:2])
        assert len(answer["choices"][0]["logprobs"]["silo_token_logprobs"]) == 2
    clear = ClearGenerator.load(copy, model)
    two = loaded("two").tokenizer
    allowed = two.allowed(1024)
    rewriting = Rewriting(model.tokenizer, two, token_counts(two, 1024, public_set().texts))
    session, text = model.session(), PROMPT
    for token in tokens:
        state = session.advance(text)
        silo_alone = log_softmax(np.where(allowed, clear.logits(state), -np.inf)[None])[0]
        own = rewriting.log_probabilities(model.head.logits(state[None]))[0]
        both = np.where(allowed, mixed(log_softmax(clear.logits(state)[None])[0], own, mixture.weight), -np.inf)
        both = log_softmax(both[None])[0]
        assert token.silo_log_probability is not None
        assert abs(token.silo_log_probability - silo_alone[token.id]) <= 2 * PRECISION
        assert abs(token.log_probability - both[token.id]) <= 4 * PRECISION
        assert both.max() - both[token.id] <= 4 * PRECISION
        text += two.pieces[token.id]


def test_a_client_that_sends_its_own_forecast(copy: Path, tls: Tls, tmp_path: Path) -> None:
    """Rows are whitened over the public texts at the client, which alone knows how; another machine must align."""
    name, maps = f"{model_name('one')}&states=forecast", tmp_path / "maps"
    with serving("sealign-server", "serve", copy, *tls.serve_options, log=tmp_path / "log") as silo:
        with Client(tls.client_settings(silo.port, model=name, map_directory=maps)) as client:
            with pytest.raises(NoMapError, match="Align first"):
                list(client.generate(PROMPT))
            client.align(public_set(), SPACE, mixture_positions=8)
            tokens = list(client.generate(PROMPT, max_tokens=12))
            (found,) = client.describe_generation()
            assert found.mixture is not None
        with Client(tls.client_settings(silo.port, model=name, map_directory=maps)) as again:
            assert len(list(again.generate(PROMPT, max_tokens=2, mixture=True))) == 2
        with (
            Client(tls.client_settings(silo.port, model=name, map_directory=tmp_path / "other")) as elsewhere,
            pytest.raises(NoMapError, match="another machine"),
        ):
            list(elsewhere.generate(PROMPT))
    model = CausalModel(EncoderSettings.parse(name))
    (file,) = maps.glob("*.whitening")
    clear, whitening = ClearGenerator.load(copy, model), Whitening.load(file)
    assert found.card.plan is not None
    assert found.card.plan.dimension == model.card.dimension > model.hidden
    two = loaded("two").tokenizer
    sampler = Sampler(Sampling(), two.allowed(1024), two.encode(PROMPT).ids.tolist())
    session, text = model.session(), PROMPT
    for token in tokens:
        row = whitening.apply(model.sent(session.advance(text)[None]))[0]
        logits = np.where(two.allowed(1024), clear.row_logits(row), -np.inf)
        assert abs(token.log_probability - log_softmax(logits[None])[0, token.id]) <= 2 * PRECISION
        left = sampler._without_repeats(logits)
        assert left.max() - left[token.id] <= 2 * PRECISION
        sampler._written.append(token.id)
        text += two.pieces[token.id]


def test_a_daemon_with_a_model_alone(silo: Server, tls: Tls, clear: ClearGenerator, tmp_path: Path) -> None:
    options = (*tls.client_options(silo.port), "--model", model_name("one"), "--listen", "127.0.0.1:0")
    with (
        serving("sealign", "daemon", *options, log=tmp_path / "log") as daemon,
        daemon_channel(daemon) as channel,
    ):
        stub = DaemonStub(channel)
        tokens = list(stub.GenerateText(pb.GenerateTextRequest(prompt=PROMPT, max_tokens=12), timeout=60))
        chosen_otherwise(clear, PROMPT, tokens)
        pieces = loaded("two").tokenizer.pieces
        assert [token.text for token in tokens] == [pieces[token.id] for token in tokens]
        assert [token.finish for token in tokens] == [""] * 11 + ["length"]
        with refused(grpc.StatusCode.INVALID_ARGUMENT, InvalidInputError, "temperature"):
            list(stub.GenerateText(pb.GenerateTextRequest(prompt=PROMPT, temperature=-1), timeout=60))
        assert PROMPT not in daemon.log
        listed = stub.ListTasks(pb.ListTasksRequest(), timeout=60)
        (task,) = listed.generation_tasks
        assert (task.name, task.description, task.max_tokens, task.ready) == (TASK, "film reviews", 250, True)
        assert not listed.tasks
        with refused(grpc.StatusCode.INVALID_ARGUMENT, InvalidInputError, "no encoder. Start it with --encoder"):
            stub.ClassifyTexts(pb.ClassifyTextsRequest(texts=[PROMPT]), timeout=60)


def test_command_lines(tls: Tls, tmp_path: Path) -> None:
    """Keep a head, read public texts, align, generate: all by commands."""
    directory, public = tmp_path / "silo", tmp_path / "public.txt"
    public.write_text("\n".join(" ".join(text.split()) for text in public_set(60).texts) + "\n")
    empty_silo(directory)
    options = ("--task", TASK, "--model", model_name("two"), "--public", public)
    made = command("sealign-server", "generation", "add", directory, *options)
    assert made.returncode == 0, made.stderr
    assert "vocabulary 1024" in made.stdout
    with serving("sealign-server", "serve", directory, *tls.serve_options, log=tmp_path / "log") as silo:
        asked = (*tls.client_options(silo.port), "--model", model_name("one"))
        ran = command("sealign", "align", "--generation", TASK, "--public", public, *asked)
        told = re.search(r"tokens: held-out explained variance (0\.\d{4})", ran.stdout)
        assert told is not None, ran.stderr
        space = SiloStore(directory).generation.space(TASK)
        (record,) = space.map_records()
        learned = record.card
        assert told[1] == f"{learned.explained_variance:.4f}"
        ran = command("sealign", "generate", PROMPT, "--max-tokens", "5", "--json", *asked)
        assert ran.stdout.count('"log_probability"') == ran.stdout.count('"request_bytes"') == 5
        ran = command("sealign", "generate", PROMPT, "--dry-run", "--public", public, *asked)
        assert re.search(rf"explained variance of hidden states[ │]+{told[1]}", ran.stdout), ran.stderr
        assert re.search(rf"maximum error of a logit[ │]+{PRECISION:.4f}", ran.stdout)
        assert re.search(r"vocabularies, Jaccard index[ │]+1\.0000", ran.stdout)
        assert re.search(r"tokens cut exactly alike, of \d{4}[ │]+1\.0000", ran.stdout)
        assert "ms per token, your model" in ran.stdout
        ran = command("sealign-server", "refine", directory, "--task", TASK, "--epochs", "2")
        before, after = map(float, re.findall(r"\d\.\d{4}", ran.stdout))
        assert after < before, ran.stderr
        refined = space.map_records()[0].card
        assert refined.id != learned.id
        forgotten = command("sealign", "maps", "delete", learned.id)  # the client goes on with the map that it pinned
        assert forgotten.returncode == 0, forgotten.stderr
        shown = json.loads(command("sealign-server", "info", directory, "--json").stdout)
        assert [task["vocabulary"] for task in shown["generation_tasks"]] == [1024]
        (row,) = (row for row in shown["maps"] if row["divergence"] is not None)
        assert (row["id"], row["explained_variance"]) == (refined.id, refined.explained_variance)
        assert row["divergence"] == pytest.approx(after, abs=1e-4)
        ran = command("sealign", "generate", PROMPT, "--dry-run", *asked)
        assert re.search(rf"explained variance of hidden states[ │]+{refined.explained_variance:.4f}", ran.stdout)
        assert re.search(rf"divergence of predictions, .* {after:.4f}", ran.stdout)
        ran = command("sealign", "generate", PROMPT, "--temperature", "-1", *asked)
        assert (ran.returncode, ran.stderr.startswith("error: Tokens cannot be chosen so: temperature")) == (2, True)
        (listed,) = json.loads(command("sealign-server", "generation", "list", directory, "--json").stdout)
        assert (listed["name"], listed["vocabulary"]) == (TASK, 1024)
        shown = json.loads(command("sealign-server", "generation", "show", directory, TASK).stdout)
        assert shown["encoder_card"]["name"] == listed["model"]
        assert command("sealign-server", "task", "list", directory).stdout == "none\n"
        ran = command("sealign-server", "generation", "remove", directory, TASK)
        assert ran.stdout == f"removed generation task {TASK}\n", ran.stderr
        ran = command("sealign", "generate", PROMPT, "--task", TASK, *asked)
        assert (ran.returncode, f"no generation task '{TASK}'" in ran.stderr) == (2, True), ran.stderr
