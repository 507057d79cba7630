"""The same greedy answers, word for word, from every program that loads what the registry holds or `export` writes.

python benchmarks/same_answers.py [--model FOLDER] [--questions 24] [--sides service,gguf,…]

Each side answers the same questions of the policy's evaluation split, up to 32 tokens, on the CPU, from text to text:
the chat template and the tokenizer are each program's own. What it is held against is Transformers' `generate` in
float32. Of llama.cpp's answers the log-probability of each token, up to the first other one, is compared too.

`--model` is a version's folder, as the registry has it or as `export` wrote it; without it the embedded model. MLflow's
scoring server needs an MLmodel file in it. vLLM is not installed: a stand-in for its engine, which continues tokens
with Transformers, sits behind its interface.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import numpy as np
import torch

from ontopic.config.model_settings import FilePrecision
from ontopic.config.policy import load_policy
from ontopic.data.labelled import load_questions
from ontopic.models.answer import Generation, Sampling
from ontopic.models.chat_template import chat_prompts
from ontopic.models.gguf import write_gguf
from ontopic.models.loading import EMBEDDED, LanguageModel, load, resolve
from ontopic.state.workspace import open_workspace
from ontopic.statistics.rates import rate

ROOT = Path(__file__).resolve().parents[1]
TOKENS = 32
PATIENCE_S = 300
THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))


@dataclass
class Answers:
    """What a side said.

    Attributes:
        logprobs: of each answer's tokens, as (id, log-probability), where it tells them.
    """

    texts: list[str]
    logprobs: list[list[tuple[int, float]]] = field(default_factory=list)


def reference(model: LanguageModel, questions: list[str]) -> Answers:
    """Transformers' own `generate`, one question at a time."""
    said = Answers([])
    for prompt in chat_prompts(model.tokenizer, [[{"role": "user", "content": question}] for question in questions]):
        inputs = model.tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        options = {"do_sample": False, "output_logits": True, "return_dict_in_generate": True}
        out = model.model.generate(**inputs, max_new_tokens=TOKENS, **options)
        ids = out.sequences[0, inputs["input_ids"].shape[1] :].tolist()
        places = [logits[0].log_softmax(-1) for logits in out.logits]
        said.logprobs.append([(token, float(place[token])) for token, place in zip(ids, places, strict=True)])
        said.texts.append(model.tokenizer.decode(ids, skip_special_tokens=True).strip())
    return said


def service(folder: Path, questions: list[str]) -> Answers:
    """Our service over HTTP."""
    from serving.process import ServedModel, Serving

    with tempfile.TemporaryDirectory() as state:
        names = {"model_version": "1", "model_name": "same", "traffic": Path(state) / "traffic.db"}
        serving = Serving(model_folder=folder, state=Path(state), max_new_tokens=TOKENS, precision="float32", **names)
        with ServedModel(serving) as served:
            headers = {"Authorization": f"Bearer {served.api_key}"}
            return _over_http(f"{served.base_url}/chat/completions", questions, headers=headers, model="same")


def mlflow(folder: Path, questions: list[str]) -> Answers:
    """MLflow's scoring server, as `mlflow models serve` starts it."""
    if not (folder / "MLmodel").is_file():
        raise SystemExit(f"{folder} has no MLmodel, which MLflow's scoring server needs; give a version's own folder")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["-m", str(folder), "-p", str(port), "--env-manager", "local"]
    command = [sys.executable, "-m", "mlflow", "models", "serve", *options]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{port}/ping", trust_env=False).status_code == 200:
                    break
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("MLflow's scoring server did not start")
            time.sleep(0.3)
        return _over_http(f"http://127.0.0.1:{port}/invocations", questions, headers={})
    finally:
        os.killpg(server.pid, 15)
        server.wait(20)


def _over_http(url: str, questions: list[str], *, headers: dict[str, str], **more: Any) -> Answers:
    said = []
    with httpx.Client(trust_env=False, timeout=PATIENCE_S, headers=headers) as client:
        for question in questions:
            messages = [{"role": "user", "content": question}]
            done = client.post(url, json={"messages": messages, "max_tokens": TOKENS, **more}).raise_for_status().json()
            done = done[0] if isinstance(done, list) else done  # MLflow's server answers with a list of one
        said.append(done["choices"][0]["message"]["content"].strip())
    return Answers(said)


class StandIn:
    """In the place of vLLM's engine: continues tokens with Transformers, and gives them one by one as vLLM does."""

    def __init__(self, folder: str) -> None:
        self._of = load(Path(folder), "float32")

    async def generate(self, prompt: Any, parameters: Any, request_id: str) -> AsyncIterator[Any]:
        """Outputs of a token each, as deltas."""
        ids = torch.tensor([prompt["prompt_token_ids"]])
        out = self._of.model.generate(ids, max_new_tokens=parameters.max_tokens, do_sample=False)[0, ids.shape[1] :]
        shown = ""
        for i, token in enumerate(out.tolist()):
            text = self._of.tokenizer.decode(out[: i + 1], skip_special_tokens=True)
            whole = text if not text.endswith("\ufffd") else shown
            stopped, last = token == self._of.tokenizer.eos_token_id, i + 1 == len(out)
            reason = ("stop" if stopped else "length") if last else None
            of = {"token_ids": [token], "logprobs": None, "finish_reason": reason, "stop_reason": None}
            yield SimpleNamespace(outputs=[SimpleNamespace(text=whole[len(shown) :], **of)], finished=last)
            shown = whole
            await asyncio.sleep(0)

    def shutdown(self) -> None:
        """Nothing is open."""


def vllm(folder: Path, questions: list[str]) -> Answers:
    """Our service's backend for vLLM, on the stand-in."""
    stand_in, parameters = ModuleType("vllm"), ModuleType("vllm.sampling_params")
    engine = SimpleNamespace(from_engine_args=lambda arguments: StandIn(arguments.model))
    vars(stand_in).update(AsyncEngineArgs=SimpleNamespace, AsyncLLMEngine=engine, SamplingParams=SimpleNamespace)
    vars(stand_in).update(TokensPrompt=dict)
    vars(parameters).update(RequestOutputKind=SimpleNamespace(DELTA=1))
    sys.modules |= {"vllm": stand_in, "vllm.sampling_params": parameters}
    from serving.prompts import Prompts
    from serving.vllm_backend import begin

    model, batch = begin(folder)
    prompts = Prompts(model)
    ids = [prompts.ids([{"role": "user", "content": question}], TOKENS) for question in questions]
    generations = [Generation(each, Sampling(TOKENS)) for each in ids]
    batch.submit(generations)
    texts = [each.done.result().text for each in generations]
    batch.close(10)
    return Answers(texts)


def llama_cpp(folder: Path, questions: list[str], *, precision: FilePrecision) -> Answers:
    """llama.cpp's server in this process, on the GGUF file that `export` writes."""
    import xllamacpp

    said = Answers([])
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "model.gguf"
        write_gguf(folder, path, precision=precision, name="same")
        given = xllamacpp.CommonParams()
        given.model.path, given.n_ctx, given.n_parallel, given.warmup, given.verbosity = str(path), 2048, 1, False, -1
        given.cpuparams.n_threads = given.cpuparams_batch.n_threads = THREADS
        given.cache_type_k = given.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        server = xllamacpp.Server(given)
        for question in questions:
            messages = [{"role": "user", "content": question}]
            asked = {"messages": messages, "max_tokens": TOKENS, "temperature": 0, "logprobs": True, "top_logprobs": 1}
            (choice,) = server.handle_chat_completions(asked)["choices"]
            said.texts.append(choice["message"]["content"].strip())
            said.logprobs.append([(each["id"], each["logprob"]) for each in choice["logprobs"]["content"]])
    return said


def openvino(folder: Path, questions: list[str]) -> Answers:
    """OpenVINO GenAI on the files that `export` writes, weights and products in float32."""
    import openvino_genai
    from transformers import AutoTokenizer

    from ontopic.models.openvino import write_openvino

    with tempfile.TemporaryDirectory() as work:
        write_openvino(folder, Path(work), precision="float32")
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": THREADS}
        pipeline = openvino_genai.LLMPipeline(work, "CPU", **options)
        settings = openvino_genai.GenerationConfig(max_new_tokens=TOKENS, do_sample=False, apply_chat_template=False)
        conversations = [[{"role": "user", "content": question}] for question in questions]
        prompts = chat_prompts(AutoTokenizer.from_pretrained(folder), conversations)
        return Answers([pipeline.generate(prompt, settings).strip() for prompt in prompts])


SIDES: dict[str, tuple[str, Callable[[Path, list[str]], Answers]]] = {
    "service": ("our service, over HTTP", service),
    "vllm": ("our vLLM backend, on a stand-in for its engine", vllm),
    "mlflow": ("MLflow's scoring server", mlflow),
    "gguf": ("llama.cpp, GGUF in float32", lambda *of: llama_cpp(*of, precision="float32")),
    "gguf-half": (
        "llama.cpp, GGUF in float16",
        lambda *of: llama_cpp(*of, precision="float16"),
    ),
    "openvino": ("OpenVINO GenAI, its files in float32", openvino),
}


def compared(said: Answers, to: Answers) -> tuple[str, str]:
    """How many answers are the same, and the largest difference of a token's log-probability."""
    same = sum(a == b for a, b in zip(said.texts, to.texts, strict=True))
    differences = []
    for theirs, ours in zip(said.logprobs, to.logprobs, strict=False):
        for (token, here), (expected, there) in zip(theirs, ours, strict=False):
            if token != expected:
                break
            differences.append(abs(here - there))
    largest = f"{max(differences):.4f} (n={len(differences)})" if differences else ""
    return str(rate(same, len(to.texts))), largest


def main() -> None:
    """Ask all sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--questions", type=int, default=24)
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--state", type=Path, default=ROOT / ".ontopic")
    arguments = parser.parse_args()
    folder = arguments.model or resolve(EMBEDDED, open_workspace(arguments.state))
    policy = load_policy(ROOT / "configs" / "policies" / "banking.yaml")
    known = [each.question for each in load_questions(policy.questions) if each.split == "evaluation"]
    questions = random.Random(0).sample(sorted(set(known)), arguments.questions)
    expected = reference(load(folder, "float32"), questions)
    lengths = [len(each) for each in expected.logprobs]
    print(f"{len(questions)} questions, {sum(lengths)} tokens, answers of {np.median(lengths):.0f} tokens (median)")
    print("| program | the same answers | largest difference of a log-probability |\n|---|---|---|", flush=True)
    for side in arguments.sides.split(","):
        name, ask = SIDES[side]
        said = ask(folder, questions)
        print(f"| {name} | {' | '.join(compared(said, expected))} |", flush=True)
        for question, a, b in zip(questions, said.texts, expected.texts, strict=True):
            if a != b:
                print(f"  {question!r}\n    {a!r}\n    {b!r}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
