"""What a million and 100 million records a day take, from measured rates: the tables of docs/measurements/scale.md.

`python benchmarks/scale.py` prints them as they stand there. What was measured is in ``MEASURED``, with where; what is
assumed is in ``ASSUMED``. Intervals and sample sizes are those of ``ontopic.statistics``.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from ontopic.config.policy import load_policy
from ontopic.judges.llm.templates import load_template, policy_values
from ontopic.records import Record
from ontopic.statistics.correction import corrected
from ontopic.statistics.rates import Rate, rate

ROOT = Path(__file__).resolve().parents[1]
SECONDS_A_DAY = 86_400


class Known(NamedTuple):
    """A number and where it is from."""

    value: float
    what: str
    source: str


MEASURED = {
    "judge": Known(
        90, "records that the embedded judge judges in a CPU second", "[Judges](judges.md#records-a-second)"
    ),
    "llm": Known(
        880,
        "records/s that one process of 64 requests asks of an LLM that answers in 50 ms",
        "[Judges](judges.md#an-llm)",
    ),
    "serve": Known(
        11,
        "answers/s of one service of 2 cores to 16 clients, the 135M model",
        "[Serving](serving.md#against-other-servers)",
    ),
    "take_in": Known(2500, "records/s that `watch` takes in", "[below](#a-large-window)"),
    "close": Known(
        940, "records/s of a window that `watch` closes, judged by a rule on words", "[below](#a-large-window)"
    ),
    "record_bytes": Known(
        708, "bytes of a record of 420 characters in PostgreSQL, indexes included", "[below](#a-large-window)"
    ),
    "member_bytes": Known(501, "bytes of its place in a window, with a verdict", "[below](#a-large-window)"),
    "place_bytes": Known(385, "bytes of the same without a verdict", "[below](#a-large-window)"),
    "store": Known(
        110,
        "records/s that one PostgreSQL takes, 16 at once, each synced to the disk, on 2 cores that 20 others wanted",
        "1,600 records, `TrafficStore.add`, 2026-11-28; a lower bound",
    ),
}
ASSUMED = {
    "prompt_usd": Known(
        2.5, "dollars for a million prompt tokens of gpt-4o", "its list price as of 2026-11, unchecked"
    ),
    "completion_usd": Known(10.0, "dollars for a million completion tokens", "the same"),
    "completion": Known(60, "tokens of a reply", "a sentence and five fields"),
    "characters": Known(4, "characters of a token", "English"),
    "core_usd": Known(0.05, "dollars for an hour of a CPU core", "a cloud's list price, about"),
    "busy": Known(0.6, "share of a core's time that is planned to be used", "room for a peak"),
    "peak": Known(3, "times the mean, at the busiest hour", "a bank's day"),
    "score": Known(0.92, "share of the records that the judge passes", "any; wider near 0.5"),
    "sensitivity": Known(0.98, "sensitivity of the judge on labelled traffic", "like the embedded judge's"),
    "specificity": Known(0.90, "specificity of the judge on labelled traffic", "the same"),
    "llm_s": Known(1.5, "seconds that gpt-4o takes to reply", "unmeasured"),
}
VOLUMES, WIDTH = (1_000_000, 100_000_000), 0.02


def width(n: int) -> float:
    """Of the raw score's 95 % interval on n records."""
    share = rate(round(ASSUMED["score"].value * n), n)
    return share.high - share.low


def needed(most: float) -> int:
    """The fewest records whose interval is no wider."""
    low, high = 1, 1 << 30
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if width(middle) <= most else (middle, high)
    return high


def corrected_width(n: int, labels: int) -> float:
    """Of the corrected score, where n records are judged and so many of the traffic are labelled at random."""
    good = round(labels * ASSUMED["score"].value)
    right = corrected(
        rate(round(n * ASSUMED["score"].value), n),
        _share(ASSUMED["sensitivity"].value, good),
        specificity=_share(ASSUMED["specificity"].value, labels - good),
        labelled=rate(good, labels),
    )
    return right.high - right.low


def _share(value: float, n: int) -> Rate:
    return rate(round(value * n), n)


def prompt_tokens() -> int:
    """Of the rubric on a record of banking."""
    template = load_template(ROOT / "configs/judge_prompts/rubric.txt", "single")
    policy = load_policy(ROOT / "configs/policies/banking.yaml")
    record = Record(question="How do I freeze my card?" * 3, answer="Open the app, choose the card, tap Freeze. " * 8)
    prompt = template.render(policy_values(policy), template.asked(record) | {"answer": record.answer})
    return round(len(prompt) / ASSUMED["characters"].value)


def usd_a_record() -> float:
    """That gpt-4o takes for a verdict."""
    prompt = prompt_tokens() * ASSUMED["prompt_usd"].value
    return (prompt + ASSUMED["completion"].value * ASSUMED["completion_usd"].value) / 1e6


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def inputs() -> str:
    """What is put in."""
    rows = [[each.what, f"{each.value:,g}", f"measured: {each.source}"] for each in MEASURED.values()]
    rows += [[each.what, f"{each.value:,g}", f"assumed: {each.source}"] for each in ASSUMED.values()]
    rows.append(["tokens of the rubric with a record", f"{prompt_tokens():,}", "computed from the prompt's characters"])
    return _table(["what", "value", "from"], rows)


def intervals() -> str:
    """How wide intervals are."""
    head = [
        "judged records of a window",
        "raw score",
        *(f"corrected, {labels:,} labels" for labels in (300, 1000, 3000)),
    ]
    rows = [
        [f"{n:,}", f"{width(n):.4f}", *(f"{corrected_width(n, labels):.3f}" for labels in (300, 1000, 3000))]
        for n in (300, needed(WIDTH), 41_667, 1_000_000)
    ]
    return _table(head, rows)


def _rates(volume: int) -> list[tuple[str, float]]:
    """What is judged, in words, and the share."""
    n = needed(WIDTH)
    return [
        ("all", 1.0),
        (f"{n:,} an hour: {WIDTH} an hour", n * 24 / volume),
        (f"{n:,} a day: {WIDTH} a day", n / volume),
    ]


def costs() -> str:
    """What a day's verdicts take."""
    head = ["records a day", "judged", "`sampling_rate`", "raw width, an hour", "a day"]
    head += ["embedded: cores, dollars a day", "gpt-4o: requests/s, processes of 64, dollars a day"]
    rows = []
    for volume in VOLUMES:
        for what, share in _rates(volume):
            judged = volume * share
            cores = judged / SECONDS_A_DAY / MEASURED["judge"].value / ASSUMED["busy"].value
            asked = judged / SECONDS_A_DAY
            processes = math.ceil(asked * ASSUMED["llm_s"].value / 64)
            rows.append(
                [
                    f"{volume:,}",
                    what,
                    f"{share:.2g}",
                    f"{width(max(1, round(judged / 24))):.4f}",
                    f"{width(round(judged)):.4f}",
                    f"{cores:,.1f}; ${cores * 24 * ASSUMED['core_usd'].value:,.2f}",
                    f"{asked:,.3g}; {processes}; ${judged * usd_a_record():,.0f}",
                ]
            )
    return _table(head, rows)


def storage() -> str:
    """What is kept."""
    head = ["records a day", "traffic a day", "windows and verdicts a day, all judged", "a year", "a year, 1 % judged"]
    rows = []
    for volume in VOLUMES:
        traffic, member = (volume * MEASURED[name].value / 1e9 for name in ("record_bytes", "member_bytes"))
        place = volume * MEASURED["place_bytes"].value / 1e9
        few = traffic + place + (member - place) * 0.01
        rows.append(
            [
                f"{volume:,}",
                f"{traffic:,.1f} GB",
                f"{member:,.1f} GB",
                f"{(traffic + member) * 365 / 1000:,.2f} TB",
                f"{few * 365 / 1000:,.2f} TB",
            ]
        )
    return _table(head, rows)


def breaks() -> str:
    """What is full first, with how much of it is used."""
    head = ["part", "can", *(f"{volume:,} a day: needs, used" for volume in VOLUMES)]
    parts = [
        ("one service of 2 cores, the 135M model", "serve", ASSUMED["peak"].value, 1.0),
        ("one PostgreSQL, records stored", "store", ASSUMED["peak"].value, 1.0),
        ("one `watch`, records taken in", "take_in", 1.0, 1.0),
        ("one `watch`, records closed", "close", 1.0, 1.0),
        ("one `watch` of 2 cores, the embedded judge on all", "judge", 1.0, 2.0),
        ("one process, an LLM on all", "", 1.0, 1.0),
    ]
    rows = []
    for what, name, times, cores in parts:
        can = MEASURED[name].value * cores if name else 64 / ASSUMED["llm_s"].value
        needs = [volume / SECONDS_A_DAY * times for volume in VOLUMES]
        rows.append([what, f"{can:,.0f}/s", *(f"{need:,.0f}/s, {need / can:,.3g}" for need in needs)])
    return _table(head, rows)


if __name__ == "__main__":
    print("\n".join(table() for table in (inputs, intervals, costs, storage, breaks)))
