"""Records a second of our LLM judge, and of other ways to judge, on the same endpoint and the same records.

python benchmarks/judging.py [--records 2000]

The endpoint is a loopback server in a process of its own that answers after 50 ms. Every way may have 64 requests under
way at once, where it can be told so. The slower ways judge fewer of the records; their rates are compared.

* bare: ``AsyncOpenAI`` and ``asyncio.gather`` over the same prompts, which reads no verdict from the replies.
* our judge, with an empty cache in a file and then with a full one.
* Evidently's ``LLMEval`` descriptor as it comes, which asks 500 times a minute at most, and with that limit taken off,
  100 at once; its prompt is its own and shorter.
* ``mlflow.genai.evaluate`` with a scorer that asks the endpoint itself; it stores a trace of each record in SQLite.
* DeepEval's ``GEval``, one record after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from multiprocessing.connection import Connection
from pathlib import Path

from ontopic.state.workspace import open_workspace

ROOT = Path(__file__).resolve().parents[1]
DELAY_S = 0.05
CONCURRENCY = 64
MODEL = "judge-model"
AS_IT_COMES = "Evidently LLMEval, as it comes"
# One reply that each of them can read.
REPLY = {
    "explanation": "The answer stays on the subject.",
    "in_scope": True,
    "declined": False,
    "verdict": "pass",
    "category": "PASS",
    "reasoning": "The answer stays on the subject.",
    "score": 9,
    "reason": "The answer stays on the subject.",
}


def serve(port: Connection) -> None:
    """Answer chat completions until killed; send the port that was given to us."""
    from aiohttp import web

    message = {"role": "assistant", "content": json.dumps(REPLY)}
    body = {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 400, "completion_tokens": 40, "total_tokens": 440},
    }
    text = json.dumps(body)

    async def complete(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(DELAY_S)
        return web.Response(text=text, content_type="application/json")

    async def run() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", complete)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=512)
        await site.start()
        port.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(run())


@contextmanager
def endpoint() -> Iterator[str]:
    """The URL of a running endpoint."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/v1"
    finally:
        process.kill()
        process.join()


def main() -> None:
    """Measure all of them and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--mlflow-records", type=int, default=50)
    parser.add_argument("--deepeval-records", type=int, default=100)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.ERROR)
    os.environ |= {"NO_PROXY": "127.0.0.1", "OPENAI_API_KEY": "none", "MLFLOW_GENAI_EVAL_MAX_WORKERS": str(CONCURRENCY)}
    os.environ |= {"DEEPEVAL_TELEMETRY_OPT_OUT": "1", "DEEPEVAL_DISABLE_DOTENV": "1"}
    with tempfile.TemporaryDirectory() as folder, endpoint() as url:
        open_workspace(Path(folder))
        os.environ["OPENAI_BASE_URL"] = url
        measure(options, url, folder=Path(folder))


def measure(options: argparse.Namespace, url: str, *, folder: Path) -> None:
    """Time each way and print the table."""
    from ontopic.config.policy import load_policy
    from ontopic.config.settings import LLMJudgeSettings
    from ontopic.judges.llm.judge import LLMJudge
    from ontopic.judges.llm.templates import load_template, policy_values
    from ontopic.judges.llm.verdict_cache import VerdictCache
    from ontopic.records import Record

    policy = load_policy(ROOT / "configs/policies/banking.yaml")
    template = load_template(ROOT / "configs/judge_prompts/rubric.txt", "single")
    settings = LLMJudgeSettings(kind="openai", model=MODEL, base_url=url, concurrency=CONCURRENCY)
    answer = (
        "Open the app, choose the card and tap Freeze; it stops working at once and can be thawed in the same place."
    )
    records = [Record(question=f"How do I freeze my card number {i}?", answer=answer) for i in range(options.records)]
    values = policy_values(policy)
    prompts = [template.render(values, template.asked(r) | {"answer": r.answer}) for r in records]

    def judged(cache: Path) -> float:
        judge = LLMJudge(settings, template, policy=policy, cache=VerdictCache(cache))
        judge.judge([Record(question="warm-up", answer="a")])
        start = time.perf_counter()
        verdicts = judge.judge(records)
        seconds = time.perf_counter() - start
        assert all(verdict.outcome == "pass" for verdict in verdicts)  # noqa: S101
        return seconds

    bare_s, cold_s, warm_s = [], [], []
    for turn in range(2):
        bare_s.append(bare(prompts))
        cold_s.append(judged(folder / f"{turn}.db"))
        warm_s.append(judged(folder / f"{turn}.db"))
    n = len(records)
    rows = [(f"bare AsyncOpenAI, run {turn + 1}", n, seconds) for turn, seconds in enumerate(bare_s)]
    rows += [(f"our judge, cold cache, run {turn + 1}", n, seconds) for turn, seconds in enumerate(cold_s)]
    rows += [(f"our judge, full cache, run {turn + 1}", n, seconds) for turn, seconds in enumerate(warm_s)]
    rows.append((AS_IT_COMES, *evidently(records[:1000], url, rpm=500)))
    rows.append(("Evidently LLMEval, no rate limit", *evidently(records[:1000], url, rpm=None)))
    rows.append(("mlflow.genai.evaluate", *mlflow_evaluate(prompts[: options.mlflow_records], folder)))
    if find_spec("deepeval"):
        rows.append(("DeepEval GEval, one by one", *geval(records[: options.deepeval_records])))
    else:
        print("DeepEval is not installed: left out")
    of_bare = n * len(bare_s) / sum(bare_s)
    print(f"{'':<34} {'records':>8} {'seconds':>8} {'records/s':>10} {'of bare':>8}")
    for name, count, seconds in rows:
        print(f"{name:<34} {count:>8,} {seconds:>8.2f} {count / seconds:>10,.1f} {count / seconds / of_bare:>8.3f}")
    rates = {name: count / seconds for name, count, seconds in rows}
    ours = n * len(cold_s) / sum(cold_s)
    print(f"our judge takes {of_bare / ours:.2f} times as long as bare")
    print(f"and judges {ours / rates[AS_IT_COMES]:.0f} times as many records a second as LLMEval as it comes")


def bare(prompts: Sequence[str]) -> float:
    """Seconds that a plain gather takes."""
    from openai import AsyncOpenAI

    async def run() -> float:
        slots = asyncio.Semaphore(CONCURRENCY)
        async with AsyncOpenAI() as client:

            async def ask(prompt: str) -> object:
                async with slots:
                    return await client.chat.completions.create(
                        model=MODEL, messages=[{"role": "user", "content": prompt}], temperature=0
                    )

            await ask("warm-up")
            start = time.perf_counter()
            await asyncio.gather(*(ask(prompt) for prompt in prompts))
            return time.perf_counter() - start

    return asyncio.run(run())


def evidently(records: Sequence, url: str, *, rpm: int | None) -> tuple[int, float]:
    """How many records, and seconds, of Evidently's own LLM descriptor."""
    import pandas as pd
    from evidently import DataDefinition, Dataset
    from evidently.descriptors import LLMEval
    from evidently.llm.options import OpenAIOptions
    from evidently.llm.templates import BinaryClassificationPromptTemplate
    from evidently.llm.utils.wrapper import RateLimits

    template = BinaryClassificationPromptTemplate(
        criteria="PASS where the answer stays on banking and helps, or declines a question that is not about banking.",
        target_category="PASS",
        non_target_category="FAIL",
        include_reasoning=True,
    )
    frame = pd.DataFrame({"text": [f"Question: {r.question}\nAnswer: {r.answer}" for r in records]})
    descriptor = LLMEval("text", provider="openai", model=MODEL, template=template, alias="judged")
    options = [OpenAIOptions(api_key="none", api_url=url, limits=RateLimits(rpm=rpm))]
    return len(records), timed(
        lambda: Dataset.from_pandas(
            frame, DataDefinition(text_columns=["text"]), descriptors=[descriptor], options=options
        )
    )


def mlflow_evaluate(prompts: Sequence[str], folder: Path) -> tuple[int, float]:
    """How many records, and seconds, of ``mlflow.genai.evaluate`` with 64 workers."""
    import mlflow
    from mlflow.genai.scorers import scorer
    from openai import OpenAI

    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    # Without a place of their own, traces would land in the working folder.
    experiment = mlflow.create_experiment("judging", artifact_location=(folder / "mlartifacts").as_uri())
    mlflow.set_experiment(experiment_id=experiment)
    client = OpenAI()

    @scorer
    def judged(inputs: dict[str, str], outputs: str) -> bool:
        reply = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": inputs["prompt"]}], temperature=0
        )
        return json.loads(reply.choices[0].message.content or "")["verdict"] == "pass"

    data = [{"inputs": {"prompt": prompt}, "outputs": "answer"} for prompt in prompts]
    return len(data), timed(lambda: mlflow.genai.evaluate(data=data, scorers=[judged]))


def geval(records: Sequence) -> tuple[int, float]:
    """How many records, and seconds, of DeepEval's GEval with fixed steps."""
    from deepeval.metrics import GEval
    from deepeval.models import DeepEvalBaseLLM
    from deepeval.test_case import LLMTestCase, SingleTurnParams
    from openai import OpenAI

    client = OpenAI()

    class Judge(DeepEvalBaseLLM):
        def load_model(self) -> None:
            return None

        def generate(self, prompt: str) -> str:
            reply = client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": prompt}], temperature=0
            )
            return reply.choices[0].message.content or ""

        async def a_generate(self, prompt: str) -> str:
            return await asyncio.to_thread(self.generate, prompt)

        def get_model_name(self) -> str:
            return MODEL

    metric = GEval(
        name="on the subject",
        evaluation_steps=["Say whether the answer stays on banking."],
        evaluation_params=[SingleTurnParams.INPUT, SingleTurnParams.ACTUAL_OUTPUT],
        model=Judge(),
        async_mode=False,
    )
    cases = [LLMTestCase(input=record.question, actual_output=record.answer) for record in records]
    return len(cases), timed(lambda: [metric.measure(case, _show_indicator=False) for case in cases])


def timed(work: Callable[[], object]) -> float:
    """Seconds of ``work``, without what it prints."""
    start = time.perf_counter()
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        work()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
