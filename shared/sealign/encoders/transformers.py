"""Hugging Face transformers models as encoders: encoder-only, encoder-decoder, causal, sentence-transformers."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from sealign.encoders.checkpoint import Checkpoint
from sealign.encoders.encoder import EmbeddedTexts, EncoderCard, Progress, TextEncoder, one_line
from sealign.encoders.fingerprint import checkpoint_contents, fingerprint
from sealign.encoders.layers import LayerChoice, ModelPass
from sealign.encoders.pooling import Readout, layer_contents
from sealign.encoders.pretrained import load_pretrained, lower_case, positions, torch_device
from sealign.encoders.sanity import check_tokenizer, largest_working, try_model
from sealign.encoders.sentence_modules import SentenceModules, read_modules
from sealign.encoders.settings import EncoderSettings, LongTexts, PoolingMode
from sealign.encoders.windows import Tokens, Window
from sealign.errors import InvalidInputError

_DEFAULT_LENGTH = 256
_TOKENISED_AT_ONCE = 1000
_FEW = 8
"""Tokens that every model reads."""
_TRIAL_BUDGET = 1e11
"""Parameters times tokens up to which a text of the longest length is tried when a model is loaded."""


class TransformersEncoder(TextEncoder):
    """A transformers model's hidden states, by default the last, read out to one float32 vector for each text.

    A sentence-transformers folder gives that package's embeddings: its pooling, dense layers, prompts, lower-casing,
    maximum length and number of dimensions are read from its files, and settings that are given take precedence. Of
    an encoder-decoder (as T5) the encoder alone is used.

    Batches are padded on the right whatever the tokenizer prefers: positions then count from the first token, and in
    a causal model no token sees the padding. A model that sees padding all the same gets texts of equal length only.
    Safe to call from several threads.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        """Load tokenizer and weights; ``settings.threads`` sets torch's threads for the process.

        Raises:
            InvalidInputError: the model is not named, not found, damaged, lacks weights, has a
                tokenizer of another model, declares what is not supported, fails a trial, or the device is not there.
        """
        self.long_texts = settings.long_texts
        self._batch_size = settings.batch_size
        self._device = torch_device(settings.device)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        checkpoint = Checkpoint(settings)
        modules = SentenceModules() if settings.gguf_file else read_modules(checkpoint)
        self._tokenizer, model = load_pretrained(settings, checkpoint, modules.folder)
        probe = check_tokenizer(self._tokenizer, model, checkpoint)
        if modules.lower_case:
            lower_case(self._tokenizer, checkpoint)
        self._lock = threading.Lock()  # the tokenizer's truncation and padding are state that calls change
        self._prompt = modules.prompt_text(settings)
        self._equal_lengths = False
        model.config.use_cache = False  # keys and values are kept for generation only
        self._model = model.eval().to(self._device)
        self._inputs = self._accepted_inputs()
        modes: tuple[PoolingMode, ...] = (settings.pooling,) if settings.pooling else modules.pooling or ("mean",)
        self._pooling = "+".join(modes)
        some_text, _ = self._pass([{name: ids[:_FEW] for name, ids in self._tokenise(probe)[0].items()}])
        self._layers = LayerChoice(settings.layers, some_text, modules, checkpoint)
        self._layers.drop_unread(self._model, some_text)
        self.pooling = self._layers.described(self._pooling)
        before, after = self._frame()
        self._prompt_alone = self._tokenise([""])[0]["input_ids"] if self._prompt else np.empty(0, dtype=np.int64)
        pooled_from = 0 if modules.include_prompt else self._prompt_length()
        self._readout = Readout(modules, modes, checkpoint, pooled_from, self._device)
        dimension = self._dimension(checkpoint)
        size = self._size(settings, modules)
        if size == 0:
            raise checkpoint.refusal("it fails on every text; choose another model")
        self._window = Window(
            size,
            before,
            after,
            prompt=max(0, len(self._prompt_alone) - before - after),
            keep_end=self._tokenizer.truncation_side == "left",
        )
        self.window = size
        if size < before + after + self._window.prompt + 1:
            raise checkpoint.refusal(f"max_length={size} leaves no room for a text beside the prompt; raise it")
        self._card = EncoderCard(
            name=checkpoint.name,
            dimension=dimension,
            fingerprint=self._fingerprint(settings, modules, checkpoint),
            normalised=settings.normalise,
        )
        short, long = ({key: values[:size] for key, values in text.items()} for text in self._tokenise(probe))
        longest = self._trial(min(size, 4 * len(long["input_ids"])))
        self._equal_lengths = try_model(self._vectors, short, long, longest, self._card.name)
        self.remarks = tuple(self._remarks(modules))

    @property
    def card(self) -> EncoderCard:
        return self._card

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text."""
        return [len(tokens["input_ids"]) for tokens in self._tokenise_all(texts)]

    def _embed(self, texts: list[str], long_texts: LongTexts, progress: Progress) -> EmbeddedTexts:
        tokens = self._readable_tokens(texts)
        lengths = np.array([len(text["input_ids"]) for text in tokens], dtype=np.int64)
        long = tuple(int(row) for row in np.flatnonzero(lengths > self._window.size))
        if long and long_texts == "refuse":
            raise InvalidInputError(
                f"{len(long)} of {len(texts)} texts are longer than the {self._window.size} tokens that the encoder "
                f"{self._card.name} reads (the first is text {long[0] + 1}, {lengths[long[0]]} tokens); shorten them, "
                "raise max_length if the model has more positions, or choose long_texts=truncate or long_texts=split"
            )
        passes = [
            (row, {name: values[piece] for name, values in text.items()})
            for row, text in enumerate(tokens)
            for piece in self._window.pieces(int(lengths[row]), long_texts)
        ]
        counts = np.bincount([row for row, _ in passes], minlength=len(texts))
        left, total = counts.copy(), np.zeros((len(texts), self._card.dimension))
        for batch in self._batches(passes):
            vectors = self._vectors([piece for _, piece in batch]).astype(np.float64)
            if self._card.normalised:
                with np.errstate(invalid="ignore", divide="ignore"):
                    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            rows = np.array([row for row, _ in batch])
            np.add.at(total, rows, vectors)
            np.subtract.at(left, rows, 1)
            progress(int((left[np.unique(rows)] == 0).sum()))
        return EmbeddedTexts((total / np.maximum(counts, 1)[:, None]).astype(np.float32), long, long_texts)

    def _batches(self, passes: list[tuple[int, Tokens]]) -> Iterator[list[tuple[int, Tokens]]]:
        """Passes of like length together, so little is padding; the longest come first, so that a lack of memory
        shows at once. Of equal length only where the model sees padding."""
        batch: list[tuple[int, Tokens]] = []
        for item in sorted(passes, key=lambda item: -len(item[1]["input_ids"])):
            differs = batch and len(item[1]["input_ids"]) != len(batch[0][1]["input_ids"])
            if len(batch) == self._batch_size or (self._equal_lengths and differs):
                yield batch
                batch = []
            batch.append(item)
        if batch:
            yield batch

    def _readable_tokens(self, texts: list[str]) -> list[Tokens]:
        """Tokens of whole texts with the prompt; refuses texts of which the tokenizer leaves nothing."""
        tokens = self._tokenise_all(texts)
        around = self._window.before + self._window.after
        for number, text in enumerate(tokens, 1):
            ids = text["input_ids"]
            if len(ids) <= around or np.array_equal(ids, self._prompt_alone):
                raise InvalidInputError(
                    f"text {number} holds only characters that the tokenizer of {self._card.name} removes; leave it out"
                )
        return tokens

    def _tokenise_all(self, texts: Sequence[str]) -> list[Tokens]:
        return [
            text
            for start in range(0, len(texts), _TOKENISED_AT_ONCE)
            for text in self._tokenise(texts[start : start + _TOKENISED_AT_ONCE])
        ]

    def _tokenise(self, texts: Sequence[str]) -> list[Tokens]:
        with self._lock:
            encoded = self._tokenizer(
                [self._prompt + text for text in texts],
                truncation=False,
                padding=False,
                return_attention_mask=False,
                verbose=False,
            )
        return [
            {name: np.array(encoded[name][row], dtype=np.int64) for name in self._inputs if name in encoded}
            for row in range(len(texts))
        ]

    def _vectors(self, texts: Sequence[Tokens]) -> NDArray[np.float32]:
        """The vectors of one batch, shape (rows, d)."""
        run, mask = self._pass(texts)
        with torch.inference_mode():
            vectors: NDArray[np.float32] = self._readout(self._layers.states(run), mask).float().numpy(force=True)
        return vectors

    def _pass(self, texts: Sequence[Tokens]) -> tuple[ModelPass, torch.Tensor]:
        """The model's pass over one batch, and the batch's mask."""
        mask = self._padded([np.ones_like(text["input_ids"]) for text in texts], 0)
        # Padding is masked; without a padding token (as in GPT-2) any token serves.
        padding = {"input_ids": self._tokenizer.pad_token_id or 0, "token_type_ids": 0}
        inputs = {name: self._padded([text[name] for text in texts], padding[name]) for name in texts[0]}
        return partial(self._model, **inputs, attention_mask=mask), mask

    def _padded(self, sequences: Sequence[NDArray[np.int64]], value: int) -> torch.Tensor:
        tensors = [torch.from_numpy(sequence) for sequence in sequences]
        return pad_sequence(tensors, batch_first=True, padding_value=value).to(self._device)

    def _accepted_inputs(self) -> tuple[str, ...]:
        """The tokenizer's outputs that the model takes, beside the mask."""
        taken = inspect.signature(self._model.forward).parameters
        types = getattr(self._model.config, "type_vocab_size", 1)
        return ("input_ids", "token_type_ids") if "token_type_ids" in taken and types != 0 else ("input_ids",)

    def _frame(self) -> tuple[int, int]:
        """Tokens that the tokenizer puts before and behind a text."""
        whole, bare = (
            list(self._tokenizer("a b", add_special_tokens=special, verbose=False)["input_ids"])
            for special in (True, False)
        )
        added = len(whole) - len(bare)
        before = next((at for at in range(added + 1) if whole[at : at + len(bare)] == bare), added)
        return before, added - before

    def _prompt_length(self) -> int:
        """Tokens of the prompt alone, as sentence-transformers counts them: without one special token at its end."""
        ids = self._prompt_alone
        return len(ids) - int(bool(len(ids)) and int(ids[-1]) in self._tokenizer.all_special_ids)

    def _dimension(self, checkpoint: Checkpoint) -> int:
        """The true d; a configuration's ``hidden_size`` may be another layer's."""
        try:
            return int(self._vectors([{"input_ids": np.zeros(1, dtype=np.int64)}]).shape[1])
        except Exception as error:
            raise checkpoint.refusal(
                f"it does not turn tokens into vectors ({one_line(error)}); choose a text encoder or a causal language "
                "model"
            ) from error

    def _size(self, settings: EncoderSettings, modules: SentenceModules) -> int:
        """Tokens to read: as asked for, or declared, and never more than the model can."""
        default = self._tokenizer.model_max_length if modules.pooling else _DEFAULT_LENGTH
        wanted = settings.max_length or modules.max_length or default
        limits = [wanted, positions(self._model)]
        if modules.max_length is None:
            limits.append(self._tokenizer.model_max_length)
        size = int(min(limit for limit in limits if limit and limit > 0))
        if size * sum(weight.numel() for weight in self._model.parameters()) > _TRIAL_BUDGET:
            return size
        return largest_working(size, self._reads)

    def _reads(self, length: int) -> bool:
        """Whether the model embeds a text of so many tokens."""
        try:
            self._vectors([self._trial(length)])
        except Exception:  # noqa: BLE001 - models fail beyond their positions in many ways
            return False
        return True

    def _trial(self, length: int) -> Tokens:
        """Some text of so many tokens."""
        ids = self._tokenise(["a b"])[0]["input_ids"]
        return {"input_ids": np.resize(ids, length)}

    def _remarks(self, modules: SentenceModules) -> Iterator[tuple[str, str]]:
        if self._equal_lengths:
            yield "the model sees padding, so only texts of equal length share a batch", "expect a lower throughput"
        if self._prompt:
            yield f"a prompt of {len(self._prompt)} characters is put before every text", "give prompt_text= for none"
        elif any(modules.prompts.values()):
            named = ", ".join(sorted(name for name, text in modules.prompts.items() if text))
            yield (
                f"the model declares prompts ({named}) and none is used",
                "choose one with prompt=NAME if texts need it",
            )

    def _fingerprint(self, settings: EncoderSettings, modules: SentenceModules, checkpoint: Checkpoint) -> str:
        files = getattr(self._tokenizer, "vocab_files_names", {}).values()
        layers = [
            {key: value for key, value in vars(layer).items() if key != "folder"} | {"kind": type(layer).__name__}
            for layer in modules.layers
        ]
        description = {
            "pooling": self._pooling,
            "normalise": settings.normalise,
            "max_length": self._window.size,
            "truncation_side": self._tokenizer.truncation_side,
            "prompt": self._prompt,
            "include_prompt": modules.include_prompt,
            "lower_case": modules.lower_case,
            "layers": layers,
            "truncate_dim": modules.truncate_dim,
        } | self._layers.description

        def contents() -> Iterator[tuple[str, bytes | memoryview]]:
            yield from checkpoint_contents(checkpoint, modules.folder, settings.gguf_file, files)
            yield from layer_contents(modules, checkpoint)

        return fingerprint("transformers", description=description, contents=contents())
