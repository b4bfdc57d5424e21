"""What people are shown before a job starts."""

from __future__ import annotations

from a2n_video.job.plan import JobPlan


def describe(plan: JobPlan) -> str:
    """The plan as a few lines: what is read, what is written and with what, what becomes of every stream."""
    info, encoder, execution = plan.info, plan.encoder, plan.execution
    duration = float(plan.time_map.window[1] - plan.time_map.window[0])
    lines = [
        f"source   {info.path}: {info.video.codec} {info.width}x{info.height} {info.pix_fmt}, {plan.frames} frames, {duration:.3f} s",
        f"result   {plan.dest}: {encoder.codec} {encoder.width}x{encoder.height} {encoder.pix_fmt}{_options(encoder.options)}",
        f"network  {execution.model} x{plan.geometry.scale} on {execution.device} ({execution.engine}, {execution.dtype}, "
        f"{execution.batch_size} at a time)",
    ]
    for fate in plan.streams.fates:
        to = f" to {fate.to}" if fate.to else ""
        reason = f" ({fate.reason})" if fate.reason else ""
        lines.append(f"{fate.fate:<8} {fate.what}{to}{reason}")
    lines.extend(f"note     {warning}" for warning in (*plan.notes, *plan.time_map.warnings))
    return "\n".join(lines)


def _options(options: dict[str, str]) -> str:
    return "".join(f" {key}={value}" for key, value in options.items() if not key.endswith("-params"))
