"""``judge --engine ray``: records by partition, in worker processes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ontopic.commands.judge_reports import JudgedFolder
from ontopic.commands.options import Project, console, judge_of
from ontopic.commands.reporting import reporting
from ontopic.data.partitions import PartitionedFiles, Source
from ontopic.errors import UserError
from ontopic.judges.judge import none_judged
from ontopic.judges.judged_partitions import JudgedPartition
from ontopic.judges.ray_engine import Cluster, PackedJudge, judge_with_ray
from ontopic.progress import progress, working
from ontopic.state.whole_file import writing
from ontopic.traffic.partitions import StoredHours


def judge_by_partition(
    project: Project,
    *,
    records: Path | None,
    out: Path,
    address: str,
    skip_bad: bool,
    as_json: bool,
) -> None:
    """Judge files, or the stored traffic where there are none, into a folder of Parquet files.

    Args:
        address: of a Ray cluster; empty for one that is started here.

    Raises:
        UserError: what ``judge_with_ray`` raises; or the folder can't be written, or nothing could be judged.
    """
    source: Source = _stored(project) if records is None else _files(records, out, skip_bad=skip_bad)
    partitions = source.partitions()
    out = out.expanduser().resolve()
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; --engine ray writes a folder of them")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with working():
        packed = PackedJudge.of(
            judge_of(project),
            project.settings.judge_choice,
            policy=project.policy,
            workspace=project.workspace,
            travels=bool(address),
        )
    with reporting(as_json=as_json) as document:
        n = sum(partition.n for partition in partitions)
        with working(), progress("verdicts", n, unit="records") as advance:
            done, kept = judge_with_ray(
                source,
                packed,
                partitions=partitions,
                out=out,
                workspace=project.workspace,
                cluster=Cluster(address),
                advance=advance,
            )
        report = _report(done, kept, out=out)
        document(report)
        console.print("\n".join(report.in_words()))
    if report.records and report.outcomes.get("unjudged", 0) == report.records:
        raise none_judged(report.records, next(iter(report.unjudged)))


def _report(done: list[JudgedPartition], kept: int, *, out: Path) -> JudgedFolder:
    outcomes, causes = Counter[str](), Counter[str]()
    for each in done:
        outcomes.update(each.outcomes)
        causes.update(each.causes)
    return JudgedFolder(
        judge_id=done[0].judge_id,
        out=str(out),
        records=outcomes.total(),
        partitions=len(done),
        kept=kept,
        outcomes=dict(outcomes),
        unjudged=dict(causes.most_common()),
    )


def _stored(project: Project) -> StoredHours:
    return StoredHours.of(project.workspace, project.policy.registered_model)


def _files(records: Path, out: Path, *, skip_bad: bool) -> PartitionedFiles:
    root, folder = records.expanduser().resolve(), out.expanduser().resolve()
    if folder == root or folder.is_relative_to(root):
        raise UserError(f"{out}: lies in {records}, where its files would be read as records; give another folder")
    return PartitionedFiles(root, skip_bad=skip_bad)
