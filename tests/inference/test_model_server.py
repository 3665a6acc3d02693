"""A server with the base's folder and the adapter: what is verified about it, against transformers and peft."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from chat_folder import chat_folder
from conftest import example_of
from fake_http import Reply, json_reply
from fake_vllm import FakeVllm, fake_vllm
from journeyman.config import Config, EvaluateConfig, ServerConfig, TrainConfig
from journeyman.errors import EngineError, InputError
from journeyman.inference.model_server import ModelServer, ServedFolder, hash_of_peft, open_server
from journeyman.inference.prompt_proof import prove_server_prompts
from journeyman.inference.server_arm import examined
from journeyman.inference.vllm import vllm_command
from journeyman.manifests import ComparedWeights, ServedFile
from journeyman.models.opening import open_base
from journeyman.protocols import Question, SilentReporter
from journeyman.records import Example, Message
from journeyman.rendering.renderer import Renderer
from journeyman.training.export import write_peft
from journeyman.training.likelihood import base_and_tuned
from journeyman.training.lora import Adapter

TRAIN = TrainConfig.model_validate({"lora": {"rank": 4}, "precision": "float32"})
ROWS = [
    example_of([Message(role="user", content=f"Task {number}")], f"the answer is {number}", id=str(number))
    for number in range(6)
]


def _adapter(folder: Path, base: Path, seed: int, size: float = 0.5) -> Path:
    """A random adapter in peft's format."""
    made = Adapter(open_base(base).geometry, TRAIN.lora, seed)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, value in made.parameters.items():
            if ".lora_B." in name:
                value.normal_(0, size)
    folder.mkdir()
    write_peft(made, open_base(base).peft, folder)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, two adapters, and the same base with other weights."""
    place = tmp_path_factory.mktemp("server")
    base = chat_folder(place / "Tiny-1M", "llama")
    chat_folder(place / "Other-1M", "llama", seed=1)
    for seed, name in enumerate(("one", "two")):
        _adapter(place / name, base, seed)
    return place


@pytest.fixture
def vllm() -> Iterator[FakeVllm]:
    with fake_vllm() as running:
        yield running


@pytest.fixture
def served(place: Path, vllm: FakeVllm) -> ServedFolder:
    """What is expected of the server, which has it."""
    base = open_base(place / "Tiny-1M")
    config = ServerConfig(url=vllm.http.url, base_model="tiny", tuned_model="tuned-{adapter}")
    made = ServedFolder(config, base.peft, base.sha256, base.path, {"all": place / "one"}, 4, 512)
    vllm.load(place / "Tiny-1M", "tiny", {made.tuned_models["all"]: place / "one"})
    return made


def _weights(served: ServedFolder, rows: list[Example]) -> ComparedWeights:
    found = _examined(served, rows).server
    assert found is not None and found.weights is not None
    return found.weights


def _examined(served: ServedFolder, rows: list[Example] = ROWS) -> ServedFile:
    base = open_base(served.path)
    reference = partial(base_and_tuned, base, TRAIN, served.adapters)
    with open_server(served, 0.0) as server:
        return examined(server, rows, Renderer(base), reference, SilentReporter())


def test_prompts_and_weights_are_those_that_were_trained(served: ServedFolder, place: Path) -> None:
    found = _examined(served)
    assert (found.path, found.sha256, found.identical_prompts) == (str(place / "Tiny-1M"), served.sha256, len(ROWS))
    assert found.server is not None and found.server.weights is not None
    assert (found.server.version, found.server.base_model) == ("0.0-fake", "tiny")
    assert found.server.tuned_models == {"all": f"tuned-{hash_of_peft(place / 'one')[:12]}"}
    weights = found.server.weights
    assert weights.tokens > 100 and weights.base_nats < 1e-3 and weights.tuned_nats < 1e-3
    assert found.load_s is None and found.peak_memory_gb is None and found.shown == f"Tiny-1M at {found.server.url}"


def test_answers_come_from_the_base_and_from_the_adapter(served: ServedFolder) -> None:
    with open_server(served, 0.0) as server:
        asked = Question("r", "coder", "tuned", ROWS[0].messages, 8, adapter=served.adapter_of("coder"))
        tuned, base = server.generate(asked), server.generate(replace(asked, adapter=None))
        assert tuned.text != base.text and tuned.prompt_tokens == base.prompt_tokens > 10
        assert server.identity(asked)["adapter"] == hash_of_peft(served.adapters["all"])
        assert server.identity(replace(asked, adapter=None))["adapter"] is None
        assert server.identity(asked)["base"] == served.sha256


def test_each_role_has_its_adapter(served: ServedFolder, vllm: FakeVllm, place: Path) -> None:
    both = replace(served, adapters={"coder": place / "one", "tester": place / "two"})
    names = both.tuned_models
    vllm.load(place / "Tiny-1M", "tiny", {names["coder"]: place / "one", names["tester"]: place / "two"})
    assert [both.adapter_of(role) for role in ("coder", "tester", "poet")] == ["coder", "tester", None]
    rows = [row.model_copy(update={"role": role}) for row in ROWS for role in ("coder", "tester", "poet")]
    assert _weights(both, rows).tuned_nats < 1e-3
    vllm.load(place / "Tiny-1M", "tiny", {names["coder"]: place / "two", names["tester"]: place / "one"})
    with pytest.raises(EngineError, match="another adapter"):
        _weights(both, rows)


# --- refused --------------------------------------------------------------------------------------


def test_other_weights_under_the_bases_name(served: ServedFolder, vllm: FakeVllm, place: Path) -> None:
    vllm.load(place / "Other-1M", "tiny", vllm.adapters)
    with pytest.raises(EngineError, match=r"'tiny' is other weights than .*Tiny-1M: .* differ by \d"):
        _examined(served)


def test_another_adapter_under_its_name(served: ServedFolder, vllm: FakeVllm, place: Path) -> None:
    vllm.load(place / "Tiny-1M", "tiny", dict.fromkeys(vllm.adapters, place / "two"))
    with pytest.raises(EngineError, match="is another adapter than the one that was trained"):
        _examined(served)


def test_the_base_under_the_adapters_name(served: ServedFolder, vllm: FakeVllm) -> None:
    vllm.ignores_adapters = True
    with pytest.raises(EngineError, match="is the base without the adapter"):
        _examined(served)


def test_a_small_adapter_that_is_not_applied(served: ServedFolder, vllm: FakeVllm, place: Path, tmp_path: Path) -> None:
    """Its effect is below the limit of other weights, but the server shows none of it."""
    small = replace(served, adapters={"all": _adapter(tmp_path / "small", place / "Tiny-1M", 3, size=0.01)})
    vllm.load(place / "Tiny-1M", "tiny", {small.tuned_models["all"]: tmp_path / "small"})
    assert _weights(small, ROWS).tuned_nats < 1e-3
    vllm.ignores_adapters = True
    with pytest.raises(EngineError, match=r"is the base without the adapter: .* differ by 0\.[01]"):
        _examined(small)


def test_a_server_with_an_earlier_adapter(served: ServedFolder, vllm: FakeVllm, place: Path) -> None:
    """The name contains the adapter's hash."""
    vllm.load(place / "Tiny-1M", "tiny", {"tuned-000000000000": place / "one"})
    with pytest.raises(EngineError, match=r"has no model 'tuned-[0-9a-f]{12}', but: tiny, tuned-0{12}") as raised:
        _examined(served)
    command = raised.value.remedy.partition(": ")[2]
    words = shlex.split(command)
    assert words[:3] == ["vllm", "serve", str(place / "Tiny-1M")] and "--enable-lora" in words
    assert words[words.index("--served-model-name") + 1] == "tiny"
    assert words[words.index("--lora-modules") + 1] == f"{served.tuned_models['all']}={place / 'one'}"
    assert words[words.index("--max-lora-rank") + 1] == "8" and words[words.index("--max-model-len") + 1] == "512"
    assert words[words.index("--port") + 1] == vllm.http.address.rpartition(":")[2]


def test_another_template(served: ServedFolder, vllm: FakeVllm, place: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(place / "Tiny-1M", tmp_path / "Tiny-1M"))
    config = (changed / "tokenizer_config.json").read_text()
    template = changed / "chat_template.jinja"
    for path in (changed / "tokenizer_config.json", template):
        if path.is_file():
            path.write_text(path.read_text().replace("assistant", "model"))
    assert config != (changed / "tokenizer_config.json").read_text() or template.is_file()
    vllm.load(changed, "tiny", vllm.adapters)
    with pytest.raises(EngineError, match=r"row 0: training and http://.* make different prompts, from token \d+"):
        _examined(served)


def test_a_context_that_is_too_small_and_an_adapter_of_another_base(served: ServedFolder, vllm: FakeVllm) -> None:
    vllm.context = 256
    with pytest.raises(EngineError, match=r"has a context of 256 tokens, and evaluate\.context is 512"):
        _examined(served)
    vllm.context = 512
    (name,) = vllm.adapters
    cards = [{"id": "tiny"}, {"id": name, "parent": "big"}]
    vllm.http.first[:] = [json_reply({"data": cards})]
    with pytest.raises(EngineError, match="on another base, 'big'"):
        _examined(served)


@pytest.mark.parametrize("body", ["[]", "{}", '{"data": 7}', "no json", '{"data": [{"id": "\\u001b[31m"}, 7]}'])
def test_a_list_of_models_that_is_none(body: str, served: ServedFolder, vllm: FakeVllm) -> None:
    vllm.http.first[:] = [Reply(body)]
    with pytest.raises(EngineError, match=r"does not list its models|has no model 'tiny'") as raised:
        _examined(served)
    assert "\x1b" not in str(raised.value)


def test_a_server_that_is_not_running(served: ServedFolder) -> None:
    gone = replace(served, config=ServerConfig(url="http://127.0.0.1:9/v1"))
    with pytest.raises(EngineError, match=r"evaluate\.server: http://127\.0\.0\.1:9/v1 .*vllm serve"):
        _examined(gone)


# --- what an API does not offer -------------------------------------------------------------------


def test_prompts_and_weights_that_cannot_be_compared(served: ServedFolder, vllm: FakeVllm) -> None:
    vllm.without = {"/tokenize", "/v1/completions", "/version"}
    found = _examined(served)
    assert found.identical_prompts is None
    assert found.server is not None and found.server.weights is None and found.server.version == ""


@pytest.mark.parametrize(
    "answer",
    [
        {"tokens": []},  # llama-server's own /tokenize, which takes text only
        {"tokens": ["a"], "max_model_len": 1},
        {"max_model_len": 1},
        [],
    ],
)
def test_another_kind_of_tokenize(answer: object, served: ServedFolder, vllm: FakeVllm, place: Path) -> None:
    vllm.http.first[:] = [json_reply(answer)]
    with open_server(served, 0.0) as server:
        assert prove_server_prompts(ROWS, Renderer(open_base(place / "Tiny-1M")), server, SilentReporter()) is None


@pytest.mark.parametrize(
    "choice",
    [
        {"text": "x"},
        {"logprobs": None},
        {"logprobs": {"token_logprobs": [-1.0]}},  # of the answer only: it knows no `echo`
        {"logprobs": {"token_logprobs": [None, "x", -1.0]}},
        {"logprobs": {"token_logprobs": 7}},
    ],
)
def test_another_kind_of_completion(choice: object, served: ServedFolder, vllm: FakeVllm) -> None:
    with open_server(served, 0.0) as server:
        vllm.http.first[:] = [json_reply({"choices": [choice]})]
        assert server.log_probabilities(None, [1, 2]) is None
        vllm.http.first[:] = [json_reply({"choices": []})]
        assert server.log_probabilities(None, [1, 2]) is None
        vllm.http.first[:] = [json_reply({"error": "no"}, 500)] * 9
        server._retry = replace(server._retry, tries=1)
        with pytest.raises(EngineError, match=r"evaluate\.server: .* 500"):
            server.log_probabilities(None, [1, 2])


# --- the config, and the command --------------------------------------------------------------------


def test_a_name_that_an_earlier_adapter_could_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must contain \{adapter\}"):
        ServerConfig(url="http://x/v1", tuned_model="tuned")
    assert EvaluateConfig().server is None and Config().evaluate.server is None


def test_the_command_of_a_repo_and_of_a_large_adapter() -> None:
    made = vllm_command("Q/R", "c1", "Q/R", {"t-1": "./a b", "t-2": "./c"}, 17, 4096, "https://gpu.lan/v1")
    assert made.startswith("vllm serve Q/R --revision c1 --enable-lora --max-lora-rank 32 --max-loras 2 ")
    assert "--lora-modules 't-1=./a b' t-2=./c --host 127.0.0.1 --port 8000" in made
    assert "--served-model-name" not in made
    with pytest.raises(InputError, match="up to rank 512, not 513"):
        vllm_command("Q/R", None, "Q/R", {"t": "a"}, 513, 1, "http://x/v1")


def test_a_key_is_sent_and_never_shown(served: ServedFolder, vllm: FakeVllm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPU_KEY", "sesame-open-123")
    keyed = replace(served, config=served.config.model_copy(update={"key_env": "GPU_KEY"}))
    vllm.http.first[:] = [json_reply({"error": "bad key sesame-open-123"}, 401)]
    with pytest.raises(EngineError, match="401") as raised:
        ModelServer(keyed, 0.0).check()
    assert "sesame" not in str(raised.value)
    assert vllm.http.asked[0].headers["authorization"] == "Bearer sesame-open-123"
