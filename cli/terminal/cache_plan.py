"""Text output of `idif cache plan`."""

from collections.abc import Iterator

from rich.table import Table

from cache.cost_estimate import Plan


def plan_table(plan: Plan, store: str) -> Table:
    """One row per split."""
    table = Table("split", "images", "store", "build", "pass without", "pass with", "pays after", title=store)
    for part in plan.estimates:
        pays = "never" if part.pays_after is None else f"{part.pays_after} passes"
        table.add_row(
            part.split,
            f"{part.images:,}",
            f"{part.bytes / 1e9:,.2f} GB",
            _time(part.build_s),
            _time(part.pass_live_s),
            _time(part.pass_store_s),
            pays,
        )
    return table


def plan_words(plan: Plan) -> Iterator[str]:
    """The measurements and conclusions as sentences."""
    speeds, whole = plan.speeds, plan.estimates[-1]
    source = "disk" if speeds.cold else "page cache (this system cannot empty it)"
    yield (
        f"measured on {speeds.images} images: encoder {_rate(speeds.encoder_images_per_s)}, "
        f"decoding {_rate(speeds.decode_images_per_s)} a thread, "
        f"build {_rate(speeds.build_images_per_s)}"
    )
    yield (
        f"storage: writing {speeds.write_gb_per_s:.2f} GB/s; batches {speeds.read_gb_per_s:.2f} GB/s from "
        f"{source}, {speeds.read_cached_gb_per_s:.2f} GB/s from memory"
    )
    arrays = ", ".join(f"{name} {size:,}" for name, size in plan.sample_bytes.items())
    yield f"bytes of a sample: {arrays} (masks before compression)"
    yield f"bytes of the encoders' weights, once in each store: {plan.weights_bytes:,}"
    yield "a pass is an epoch, an evaluation or a missing-view sweep, without the part that learns"
    if not plan.fits:
        needed = whole.bytes + plan.weights_bytes
        yield (
            f"does not fit: {needed / 1e9:,.2f} GB, and {plan.free_bytes / 1e9:,.2f} GB are free; "
            f"uint8 takes half, --category or --split less"
        )
    for part in plan.estimates:
        if part.pays_after is None:
            yield (
                f"{part.split}: a store does not pay here: reading takes {_time(part.pass_store_s)} a pass, "
                f"the encoder {_time(part.pass_live_s)}; use cache.source: live"
            )


def _rate(images_per_s: float) -> str:
    return f"{images_per_s:,.1f} images/s" if images_per_s >= 1 else f"{_time(1 / images_per_s)} an image"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
