"""A stand-in for vLLM that computes with transformers and peft: the same requests and answers, for tiny models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from fake_http import Asked, FakeHttp, Reply, events_reply, fake_http, json_reply


@dataclass
class FakeVllm:
    """What it serves, which a test may change while it runs.

    Attributes:
        base: folder, or None if nothing is loaded.
        name: the base's name.
        adapters: name → folder in peft's format.
        without: paths that it does not have, such as /tokenize.
        ignores_adapters: it answers with the base under every name.
        context: its max_model_len.
        version: what it says of itself.
    """

    base: Path | None = None
    name: str = ""
    adapters: dict[str, Path] = field(default_factory=dict)
    without: set[str] = field(default_factory=set)
    ignores_adapters: bool = False
    context: int = 512
    version: str = "0.0-fake"
    http: FakeHttp = field(default_factory=FakeHttp)
    _loaded: dict[str, Any] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def load(self, base: Path, name: str, adapters: dict[str, Path]) -> None:
        self.base, self.name, self.adapters, self._loaded = base, name, adapters, {}

    def reply(self, asked: Asked) -> Reply:
        with self._lock:
            if asked.path in self.without or self.base is None:
                return json_reply({"detail": "Not Found"}, 404)
            if asked.path == "/version":
                return json_reply({"version": self.version})
            if asked.path == "/v1/models":
                return json_reply({"object": "list", "data": self._cards()})
            answer = {"/tokenize": self._tokenize, "/v1/completions": self._echo, "/v1/chat/completions": self._chat}
            if asked.path not in answer:
                return json_reply({"detail": "Not Found"}, 404)
            body = asked.json
            if body.get("model") not in (self.name, *self.adapters):
                return json_reply({"error": {"message": f"The model `{body.get('model')}` does not exist."}}, 404)
            return answer[asked.path](body)

    def _cards(self) -> list[dict[str, Any]]:
        base = {"id": self.name, "root": str(self.base), "parent": None, "max_model_len": self.context}
        return [base, *({"id": one, "root": str(path), "parent": self.name} for one, path in self.adapters.items())]

    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        if "tokenizer" not in self._loaded:
            self._loaded["tokenizer"] = AutoTokenizer.from_pretrained(str(self.base))
        return self._loaded["tokenizer"]

    @torch.no_grad()
    def _logits(self, name: str, ids: list[int]) -> Any:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        if "model" not in self._loaded:
            model = AutoModelForCausalLM.from_pretrained(str(self.base), dtype=torch.float32)
            for adapter, folder in self.adapters.items():
                if isinstance(model, PeftModel):
                    model.load_adapter(str(folder), adapter)
                else:
                    model = PeftModel.from_pretrained(model, str(folder), adapter)
            self._loaded["model"] = model.eval()
        model = self._loaded["model"]
        tuned = name in self.adapters and not self.ignores_adapters
        if tuned:
            model.set_adapter(name)
        with nullcontext() if tuned or not self.adapters else model.disable_adapter():
            return model(torch.tensor([ids])).logits[0]

    def _prompt(self, body: dict[str, Any]) -> list[int]:
        text = self._tokenizer().apply_chat_template(body["messages"], add_generation_prompt=True, tokenize=False)
        return list(self._tokenizer().encode(text, add_special_tokens=False))

    def _tokenize(self, body: dict[str, Any]) -> Reply:
        ids = self._prompt(body)
        return json_reply({"count": len(ids), "max_model_len": self.context, "tokens": ids, "token_strs": None})

    def _echo(self, body: dict[str, Any]) -> Reply:
        assert body["echo"] and body["max_tokens"] == 1 and body["logprobs"] == 1
        ids = body["prompt"]
        table = self._logits(body["model"], ids).log_softmax(-1)
        values = [table[place, token].item() for place, token in enumerate(ids[1:])]
        found = {"token_logprobs": [None, *values, table[-1].max().item()], "tokens": [""] * (len(ids) + 1)}
        return json_reply({"choices": [{"text": "", "logprobs": found}]})

    def _chat(self, body: dict[str, Any]) -> Reply:
        ids, ends = self._prompt(body), self._tokenizer().eos_token_id
        prompt, finish = len(ids), "length"
        while len(ids) - prompt < body["max_tokens"]:
            token = int(self._logits(body["model"], ids)[-1].argmax())
            if token == ends:
                finish = "stop"
                break
            ids.append(token)
        text = self._tokenizer().decode(ids[prompt:])
        return events_reply(
            {"choices": [{"delta": {"content": text}, "finish_reason": None}]},
            {"choices": [{"delta": {}, "finish_reason": finish}]},
            {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": len(ids) - prompt}},
        )


@contextmanager
def fake_vllm() -> Iterator[FakeVllm]:
    """Serves until the end of the block; nothing is loaded at first."""
    made = FakeVllm()
    with fake_http(made.reply) as made.http:
        yield made
