"""The predictions file: what goes in comes out, nothing half-written is trusted, damage is noticed."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from idif.data.index import Sample, View
from idif.errors import RunError
from idif.evaluation.category_metrics import category_metrics, update_pixels
from idif.evaluation.predictions import Predictions
from idif.evaluation.predictions_writer import PredictionsWriter, half_maps
from idif.metrics import PixelMetrics, aupro, auroc
from idif.metrics.sample import sample_scores

SIZE = 16
NUMBERS = (1, 2, 4)


def made(count: int = 7, categories: tuple[str, ...] = ("cup", "bölt")) -> list[Sample]:
    """Samples over the categories in turn; the second sample lacks a view, every third is anomalous."""
    samples = []
    for i in range(count):
        defect = ["OK", "OK", "scratch", "OK", "OK", "pit"][i % 6]
        views: list[View | None] = [
            View(n, f"{i}/C{n}.jpg", f"{i}/C{n}.png" if c != "OK" else None, c)
            for n, c in zip(NUMBERS, (defect, "OK", defect), strict=True)
        ]
        if i == 1:
            views[2] = None
        category = categories[i % len(categories)]
        samples.append(Sample(f"{category}/S{i}", category, "test", tuple(views)))
    return samples


def tensors(samples: list[Sample], seed: int = 0) -> tuple[torch.Tensor, ...]:
    """View scores, sample scores, maps and masks, with rubbish in the absent views."""
    rng = torch.Generator().manual_seed(seed)
    present = torch.tensor([s.present for s in samples])
    labels = torch.tensor([s.labels for s in samples])
    masks = torch.zeros(len(samples), 3, SIZE, SIZE, dtype=torch.bool)
    masks[:, :, 2:6, 3:8] = True
    masks &= labels[:, :, None, None]
    maps = torch.rand(masks.shape, generator=rng) + masks * 0.5
    maps[~present] = 1e9
    scores = maps.amax((-1, -2))
    return scores, sample_scores(scores, present), maps, masks


def write(path: Path, samples: list[Sample], block: int = 3, maps: bool = True) -> tuple[torch.Tensor, ...]:
    arrays = tensors(samples)
    with PredictionsWriter(path, NUMBERS, SIZE, maps=maps, protocol={"score": "max"}) as writer:
        for i in range(0, len(samples), block):
            writer.append(samples[i : i + block], *(a[i : i + block] for a in arrays))
    return arrays


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    samples, path = made(), tmp_path / "predictions.h5"
    views, scores, maps, masks = write(path, samples)
    found = Predictions.open(path)
    assert found.sample_id == tuple(s.sample_id for s in samples)
    assert found.category == tuple(s.category for s in samples)
    assert found.present.tolist() == [list(s.present) for s in samples]
    assert found.labels.tolist() == [list(s.labels) for s in samples]
    assert found.image_path[1] == ("1/C1.jpg", "1/C2.jpg", "")
    assert found.anomaly_class[2] == ("scratch", "OK", "scratch")
    assert found.view_numbers == NUMBERS
    assert found.protocol == {"score": "max"}
    assert found.view_scores.dtype == found.sample_scores.dtype == np.float32
    assert np.isnan(found.view_scores[1, 2])
    assert np.array_equal(found.view_scores[found.present], views.numpy()[found.present])
    assert np.array_equal(found.sample_scores, scores.numpy())
    rows = [5, 0, 1]
    blocks = list(found.iter_maps(rows, block=2))
    assert [part.tolist() for part, _, _ in blocks] == [[5, 0], [1]]
    kept = found.present[rows][:, :, None, None]
    assert np.array_equal(np.concatenate([b[1] for b in blocks]), np.where(kept, half_maps(maps[rows]), 0))
    assert np.array_equal(np.concatenate([b[2] for b in blocks]), masks[rows].numpy())
    assert blocks[0][1].dtype == np.float16


def test_the_file_is_as_the_surface_says(tmp_path: Path) -> None:
    write(tmp_path / "p.h5", made())
    with h5py.File(tmp_path / "p.h5") as file:
        assert {name: file[name].shape for name in file} == {
            "sample_id": (7,),
            "category": (7,),
            "labels": (7, 3),
            "present": (7, 3),
            "has_mask": (7, 3),
            "view_scores": (7, 3),
            "sample_scores": (7,),
            "maps": (7, 3, SIZE, SIZE),
            "masks": (7, 3, SIZE, SIZE),
            "image_path": (7, 3),
            "mask_path": (7, 3),
            "anomaly_class": (7, 3),
        }
        assert file["maps"].dtype == np.float16
        assert file["masks"].dtype == file["labels"].dtype == np.bool_
        assert file["sample_id"].asstr()[1] == "bölt/S1"


def test_blocks_of_any_size_make_the_same_file(tmp_path: Path) -> None:
    samples = made()
    for block in (1, 7):
        write(tmp_path / f"{block}.h5", samples, block)
    a, b = (category_metrics(Predictions.open(tmp_path / f"{n}.h5")) for n in (1, 7))
    assert a == b


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_writer_leaves_nothing_and_keeps_the_old_file(tmp_path: Path, error: type) -> None:
    path, samples = tmp_path / "predictions.h5", made()
    write(path, samples[:2])
    arrays = tensors(samples)

    def interrupted() -> None:
        with PredictionsWriter(path, NUMBERS, SIZE) as writer:
            writer.append(samples, *arrays)
            raise error

    with pytest.raises(error):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == ["predictions.h5"]
    assert len(Predictions.open(path)) == 2


def test_results_of_the_old_file_go_with_it_and_not_before(tmp_path: Path) -> None:
    path, metrics, samples = tmp_path / "predictions.h5", tmp_path / "metrics.json", made(2)
    write(path, samples)
    metrics.write_text("{}")
    with pytest.raises(KeyboardInterrupt), PredictionsWriter(path, NUMBERS, SIZE, derived=[metrics]):
        raise KeyboardInterrupt
    assert metrics.exists(), "an interrupted pass replaces nothing"
    with PredictionsWriter(path, NUMBERS, SIZE, derived=[metrics]):
        pass
    assert not metrics.exists()


def test_no_samples_at_all(tmp_path: Path) -> None:
    with PredictionsWriter(tmp_path / "p.h5", NUMBERS, SIZE):
        pass
    found = Predictions.open(tmp_path / "p.h5")
    assert len(found) == 0
    assert list(found.iter_maps([])) == []


def test_missing_foreign_and_cut_files_are_run_errors(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is none"):
        Predictions.open(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(RunError, match="damaged"):
        Predictions.open(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w"):
        pass
    with pytest.raises(RunError, match="format"):
        Predictions.open(tmp_path / "other.h5")
    path = tmp_path / "p.h5"
    write(path, made())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match=r"p\.h5.*damaged"):
        Predictions.open(path)
    with pytest.raises(RunError, match="cannot be written"):
        write(tmp_path / "nowhere" / "p.h5", made())


def test_missing_parts_and_wrong_shapes_are_run_errors(tmp_path: Path) -> None:
    for i, (name, keep) in enumerate([("labels", 0), ("masks", 0), ("present", 5), ("masks", 5)]):
        path = tmp_path / f"{i}.h5"
        write(path, made())
        with h5py.File(path, "r+") as file:
            if keep:
                file[name].resize(keep, axis=0)
            else:
                del file[name]
        with pytest.raises(RunError, match=name):
            Predictions.open(path)


def test_every_flipped_byte_of_the_data_is_noticed_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "p.h5"
    write(path, made())
    whole = path.read_bytes()
    expected = category_metrics(Predictions.open(path), resamples=0)
    rng = np.random.default_rng(0)
    noticed = 0
    for at in rng.integers(0, len(whole), 60):
        broken = bytearray(whole)
        broken[at] ^= 0x10
        path.write_bytes(broken)
        try:
            found = category_metrics(Predictions.open(path), resamples=0)
        except RunError:
            noticed += 1
        else:
            assert found == expected, at
    assert noticed > 10


@pytest.mark.parametrize("name", ["maps", "masks", "view_scores", "labels", "sample_id", "image_path"])
def test_damaged_data_are_noticed(tmp_path: Path, name: str) -> None:
    path = tmp_path / "p.h5"
    write(path, made())
    if name in ("sample_id", "image_path"):
        data = path.read_bytes()
        word = {"sample_id": b"cup/S2", "image_path": b"2/C1.jpg"}[name]
        assert data.count(word) == 1
        path.write_bytes(data.replace(word, word[:-1] + b"9"))
    else:
        with h5py.File(path) as file:
            chunk = file[name].id.get_chunk_info(0)
        changed = bytearray(path.read_bytes())
        changed[chunk.byte_offset + chunk.size // 2] ^= 1
        path.write_bytes(changed)
    with pytest.raises(RunError, match=r"p\.h5.*damaged"):
        category_metrics(Predictions.open(path), resamples=0)


def test_category_metrics_from_the_file(tmp_path: Path) -> None:
    samples, path = made(30), tmp_path / "p.h5"
    views, scores, maps, masks = write(path, samples)
    predictions = Predictions.open(path)
    found = category_metrics(predictions, "bölt", fpr_limits=(0.3, 0.1))
    rows = predictions.rows("bölt")
    present, labels = predictions.present[rows], predictions.labels[rows]
    seen = half_maps(maps[rows])[present], masks[rows].numpy()[present]
    assert found["p_auroc"] == auroc(*seen)
    assert found["aupro@0.1"] == aupro(*seen, 0.1)
    assert found["s_auroc"] == auroc(scores[rows], np.any(labels, axis=1, keepdims=False))
    assert found["i_auroc"] == auroc(views.numpy()[rows][present], labels[present])
    assert found["per_view"]["2"]["i_auroc"] is None
    assert "camera 2" in found["reasons"]["per_view.2.i_auroc"]
    assert set(found["per_defect"]) == {"pit"}
    assert found["counts"] == {
        "samples": 15,
        "anomalous_samples": 5,
        "incomplete_samples": 1,
        "unscorable": 0,
        "views": 44,
        "anomalous_views": 10,
        "normal_pixels": 44 * SIZE**2 - 200,
        "anomalous_pixels": 200,
        "regions": 10,
    }
    assert found["p_error_bound"] == 0
    json.dumps(found, allow_nan=False)
    pooled = category_metrics(predictions)
    assert pooled["counts"]["samples"] == 30
    assert set(pooled["per_defect"]) == {"pit", "scratch"}
    mine = np.array([c[0] == "pit" for c in predictions.anomaly_class])
    pool = mine | ~predictions.labels.any(1)
    assert pooled["per_defect"]["pit"]["s_auroc"] == auroc(scores.numpy()[pool], mine[pool])
    shown, anomalous = predictions.present, predictions.labels & predictions.present
    pits = anomalous & mine[:, None]
    others = pits | (shown & ~anomalous)
    assert pooled["per_defect"]["pit"]["i_auroc"] == auroc(views.numpy()[others], pits[others])
    with pytest.raises(RunError, match="cup, bölt"):
        category_metrics(predictions, "plug")


def test_without_maps_pixel_metrics_come_from_the_pass_or_are_null(tmp_path: Path) -> None:
    samples = made()
    write(tmp_path / "with.h5", samples)
    _, _, maps, masks = write(tmp_path / "without.h5", samples, maps=False)
    with_maps, without = (Predictions.open(tmp_path / f"{n}.h5") for n in ("with", "without"))
    null = category_metrics(without)
    assert null["p_auroc"] is null["aupro"] is null["p_error_bound"] is None
    assert "--no-maps" in null["reasons"]["aupro"]
    with pytest.raises(RunError, match="--no-maps"):
        next(without.iter_maps([0]))
    pixel, p = PixelMetrics(), without
    update_pixels(pixel, half_maps(maps), masks.numpy(), p.present, p.labels, p.has_mask)
    assert category_metrics(without, pixels={"map": pixel}) == category_metrics(with_maps)


def test_an_anomalous_view_without_mask_makes_pixel_metrics_null(tmp_path: Path) -> None:
    samples = made()
    bare = View(1, "2/C1.jpg", None, "scratch")
    samples[2] = Sample(samples[2].sample_id, "cup", "test", (bare, *samples[2].views[1:]))
    write(tmp_path / "p.h5", samples)
    found = category_metrics(Predictions.open(tmp_path / "p.h5"))
    assert found["p_auroc"] is None
    assert found["reasons"]["p_auroc"] == "an anomalous view has no mask"
    assert found["i_auroc"] is not None


def test_scores_that_are_not_finite_name_their_sample(tmp_path: Path) -> None:
    samples = made()
    views, scores, maps, masks = tensors(samples)
    for i, broken in enumerate((views, scores, maps)):
        kept = broken[4].clone()
        broken[4] = torch.nan
        with PredictionsWriter(tmp_path / f"{i}.h5", NUMBERS, SIZE) as writer:
            writer.append(samples, views, scores, maps, masks)
        with pytest.raises(RunError, match=r"cup/S4(?!.*S5)"):
            category_metrics(Predictions.open(tmp_path / f"{i}.h5"))
        broken[4] = kept
