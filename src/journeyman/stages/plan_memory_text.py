"""The plan's lines about memory."""

from __future__ import annotations

from collections.abc import Iterator

from journeyman.manifests import MemoryFree, NearestConfiguration, PlanManifest

_PARTS = {
    "runtime": "Python with torch",
    "products": "machine code and workspaces of matrix products",
    "weights": "the base's weights",
    "adapter": "the adapter, its gradients and what the optimizer remembers of it",
    "activations": "intermediate results that the backward pass needs (activations)",
    "logits": "scores of all words of the vocabulary, for some tokens at a time",
    "entering": "the input of each layer, from which the rest is computed again",
    "passing": "what is computed and freed on the way, and gaps between what is kept",
}
_ON_GPU = {"runtime": "CUDA's context, kernels and workspaces"}


def training_lines(plan: PlanManifest) -> Iterator[str]:
    """The peak of training, its parts, and what is free."""
    peak, measured = plan.estimated_train_memory_gb, plan.measured_train_memory_gb
    of = "the GPU's memory" if plan.device else "memory"
    if measured is None:
        yield f"peak of {of} in training: {peak:.2f} GB, computed"
    else:
        yield f"peak of {of} in training: {peak:.2f} GB; steps with the longest pack were measured at {measured:.2f} GB"
    if plan.train_memory_parts:
        named = (_PARTS | _ON_GPU) if plan.device else _PARTS
        yield f"computed by part, {sum(plan.train_memory_parts.values()):.2f} GB in all:"
        yield from (f"{named.get(part, part)}: {size:.2f} GB" for part, size in plan.train_memory_parts.items())
    if plan.memory_free is not None:
        yield _free_line(plan.memory_free, plan.device is not None)


def _free_line(free: MemoryFree, on_gpu: bool) -> str:
    where = "on the GPU" if on_gpu else "on this machine"
    said = f"free now: {free.free_gb:.1f} of {free.total_gb:.1f} GB {where}"
    if free.group_limit_gb is not None and free.group_used_gb is not None:
        said = (
            f"free now: {free.free_gb:.1f} GB; this process is in a container or control group with a limit of "
            f"{free.group_limit_gb:.1f} GB, of which {free.group_used_gb:.1f} are used (machine: {free.total_gb:.0f})"
        )
    share = "as train.max_memory_gb says" if free.limit_from == "max_memory_gb" else "the rest is left to others"
    return f"{said}, without swap; training may use {free.limit_gb:.2f} GB, {share}"


def nearest_lines(plan: PlanManifest) -> Iterator[str]:
    """What fits if this does not, the smallest change first."""
    for of in ("training", "serving"):
        found = [one for one in plan.nearest if one.of == of]
        if found:
            yield f"{of} does not fit. The nearest settings that do; --fit takes the first that needs no other model:"
            yield from (f"{number}. {_line(one)}" for number, one in enumerate(found, 1))


def _line(one: NearestConfiguration) -> str:
    time = "" if one.train_s is None else f", about {one.train_s:.0f} s"
    costs = "; ".join(cost.sentence() for cost in one.costs)
    return f"{one.flags() or 'another base.model'}: {one.memory_gb:.1f} GB{time}; {costs}"
