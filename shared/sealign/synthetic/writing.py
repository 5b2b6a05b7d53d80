"""A local causal language model that writes one more text like those that it is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers import AutoModelForCausalLM

from sealign.encoders import EncoderSettings
from sealign.encoders.checkpoint import Checkpoint
from sealign.encoders.pretrained import load_pretrained, positions, torch_device
from sealign.errors import InvalidInputError

_BATCH = 32
_LONGEST = 300
"""Characters of an example that are shown."""
_TEMPERATURE, _TOP_P, _TOP_K = 0.9, 0.95, 50
_FEWEST_WORDS = 3
_WINDOW = 2048


class CausalWriter:
    """Continues a list of examples by one more, under a task's description.

    Args:
        settings: name the model, as for generation.
        description: of the task; public.
        tokens: maximum tokens of a text.
        seed: random seed for sampling; it protects nothing.

    Raises:
        InvalidInputError: the model cannot be loaded or is not causal, or is too short for so many tokens.
    """

    def __init__(self, settings: EncoderSettings, description: str = "", tokens: int = 48, seed: int = 0) -> None:
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self._device = torch_device(settings.device)
        tokenizer, model = load_pretrained(settings, Checkpoint(settings), kind=AutoModelForCausalLM)
        tokenizer.padding_side = tokenizer.truncation_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
        room = min(positions(model) or _WINDOW, settings.max_length or _WINDOW) - tokens
        if room < tokens:
            raise InvalidInputError(f"the model {settings.model!r} has no room for texts of {tokens} tokens; ask fewer")
        self._tokenizer, self._model = tokenizer, model.eval().to(self._device)
        self._description, self._tokens, self._room, self._seed = description, tokens, room, seed

    def __call__(self, examples: Sequence[Sequence[str]], progress: Callable[[int], None]) -> list[str]:
        """Return at most one text for each group of examples, in no order; the progress is told of groups."""
        prompts = sorted((self._prompt(group) for group in examples), key=len)
        texts: list[str] = []
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(self._seed)
            for start in range(0, len(prompts), _BATCH):
                some = prompts[start : start + _BATCH]
                texts += [text for text in map(_usable, self._continued(some)) if text]
                progress(len(some))
        self._seed += 1
        return texts

    def _prompt(self, group: Sequence[str]) -> str:
        head = f"{self._description}\n\n" if self._description else ""
        return head + "".join(f"- {text[:_LONGEST]}\n" for text in group) + "-"

    def _continued(self, prompts: Sequence[str]) -> list[str]:
        read = self._tokenizer(
            list(prompts), return_tensors="pt", padding=True, truncation=True, max_length=self._room,
            return_token_type_ids=False,
        ).to(self._device)  # fmt: skip
        written = self._model.generate(
            **read, max_new_tokens=self._tokens, do_sample=True, temperature=_TEMPERATURE, top_p=_TOP_P, top_k=_TOP_K,
            pad_token_id=self._tokenizer.pad_token_id,
        )  # fmt: skip
        new = written[:, read["input_ids"].shape[1] :]
        decoded: list[str] = self._tokenizer.batch_decode(new, skip_special_tokens=True)
        return decoded


def _usable(written: str) -> str:
    """Return the first line as a text; empty where it has few words, or characters that are none."""
    lines = written.strip().splitlines()
    text = " ".join(lines[0].split()).strip(" -\"'*") if lines else ""
    words = sum(any(map(str.isalpha, word)) for word in text.split())
    return text if words >= _FEWEST_WORDS and text.isprintable() and "\ufffd" not in text else ""
