"""Palettes: few values for each weight, near the weights, and files that are as small as that."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import prunec
from prunec.ir.errors import UsageError
from prunec.passes.pack.kmeans import kmeans

from .test_mask import X, compiled, held


def wide() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Conv2d(64, 8, 1)).eval()


def normed() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 64, 24, stride=8, padding=8), nn.BatchNorm2d(64), nn.Conv2d(64, 64, 1)).eval()
    for name in ("weight", "running_var"):
        nn.init.uniform_(getattr(model[1], name), 0.5, 2)
    return model


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("method", ["kmeans", "uniform"])
def test_few_values(bits: int, method: str) -> None:
    result = compiled(f"palette{{bits={bits},method={method}}},verify", wide())
    weight = held(result)["2.weight"]
    assert np.unique(weight).size <= 1 << bits
    assert np.unique(held(result)["0.weight"]).size > 256, "below 2,048 elements nothing changes"
    assert result.forms == {"palette": 1, "dense": 1}
    width = {3: 4, 6: 8}.get(bits, bits)
    small, dense = result.emit().size_bytes(), result.report["size_bytes"]["dense"]
    assert dense - small == pytest.approx(weight.size * (4 - width / 8), abs=4000)
    assert result.report["verify"]["onnx_rel_err"] < 1e-5


def test_more_bits_are_nearer() -> None:
    errors = [
        compiled(f"palette{{bits={b}}}", wide(), verify=False).report["values"]["palette"]["relative_error"]["2.weight"]
        for b in (1, 2, 4, 8)
    ]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.02


@pytest.mark.parametrize("options", ["dim=2", "dim=4,group=16", "group=8", "scale=true", "scale=true,group=32"])
def test_vectors_groups_and_scales(options: str) -> None:
    result = compiled(f"palette{{bits=4,{options}}},verify", wide())
    assert result.forms == {"palette": 1, "dense": 1}
    assert result.report["verify"]["onnx_rel_err"] < 1e-5
    assert result.report["values"]["palette"]["bits"] == {"dim=2": 2, "dim=4": 1}.get(options.split(",")[0], 4)


def test_prune_then_cluster() -> None:
    """What is zero stays zero, and is held as a bit; the others as indices."""
    pipeline = "score{method=magnitude},mask{sparsity=0.8,ignore=[0.*]},palette{bits=4},pack,verify"
    result = compiled(pipeline, wide())
    weight = held(result)["2.weight"]
    assert (weight == 0).mean() == pytest.approx(0.8, abs=0.02)
    assert np.unique(weight).size <= 16
    assert result.forms["bitmask"] == 1
    dense = weight.size * 4
    assert result.report["size_bytes"]["dense"] - result.emit().size_bytes() > dense * (1 - 2 / 32) - 4000


def test_after_channels_went() -> None:
    result = compiled("score{method=l1},plan{ratio=0.3,align=4},eliminate,palette{bits=2},verify", wide())
    assert result.report["verify"]["max_rel_err"] < 1e-5
    assert result.report["params"]["ratio"] < 1


@pytest.mark.parametrize("fold", ["", "fold,"])
def test_batch_norms_that_go_into_a_palette_scale_its_rows(fold: str) -> None:
    """Those of a trained network: by ``fold`` or, where that does not stand, by torch's exporter."""
    norm = nn.BatchNorm2d(64)
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 2)
    model = wide()
    assert isinstance(model, nn.Sequential)
    model.insert(3, norm)
    model.eval()
    result = compiled(f"palette{{bits=4}},{fold}verify", model)
    assert result.forms == {"palette": 1, "dense": 1}
    small, dense = result.emit().size_bytes(), result.report["size_bytes"]["dense"]
    tables = 4 * 64 * 16
    assert dense - small == pytest.approx(64 * 64 * 9 * 3.5 - tables, abs=4000)
    assert result.report["verify"]["onnx_rel_err"] < 1e-5


def test_fold_changes_the_numbers_of_a_palette() -> None:
    """Batch norms that go into a palettised weight scale its rows: each has a table of its own, and a note says so."""
    result = compiled("palette{bits=4,least=512},fold,verify", normed())
    assert result.report["verify"]["onnx_rel_err"] < 1e-5
    assert result.forms["palette"] == 2
    note = next(n for n in result.report["notes"] if n.startswith("fold: batch norms scale the rows of 1 weight"))
    assert "0.0594 MB for 0.0554" in note and note.endswith("0.weight")
    assert result.report["packed"]["torch"]["forms"]["palette"] == 2, "the module keeps its batch norms"


def test_what_fold_leaves_alone_is_no_note() -> None:
    for pipeline in ("palette{bits=4},fold,verify", "score{method=magnitude},mask{sparsity=0.9},pack,fold,verify"):
        result = compiled(pipeline, wide() if pipeline.startswith("palette") else normed())
        assert not [n for n in result.report["notes"] if "few values" in n]


def test_an_onnx_file() -> None:
    model = prunec.compile(wide(), X, ratio=0, measure=False).onnx
    result = prunec.compile(model, None, "palette{bits=4},verify", measure=False)
    assert result.forms["palette"] == 1


def test_numbers_that_are_few_already_are_their_own_centres() -> None:
    numbers = np.random.default_rng(0).choice([-1.5, 0.0, 0.25, 7.0], (5000, 1))
    centres, chosen = kmeans(numbers, 4, 0)
    np.testing.assert_array_equal(centres[chosen], numbers)


def test_zeros_have_a_centre_of_their_own() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal((5000, 1)) * (rng.random((5000, 1)) < 0.3)
    centres, chosen = kmeans(numbers, 4, 0)
    np.testing.assert_array_equal(centres[chosen] == 0, numbers == 0)


@pytest.mark.parametrize("d", [2, 3, 9])
def test_zeros_in_vectors_stay_zeros(d: int) -> None:
    """Each way of being zero has centres of its own, more where there are more numbers; the nearest is taken."""
    rng = np.random.default_rng(0)
    ways = rng.random((5, d)) < 0.6
    ways[0], ways[1] = True, False
    which = rng.choice(5, 4000, p=[0.6, 0.1, 0.1, 0.1, 0.1])
    vectors = rng.standard_normal((4000, d)) * ways[which]
    centres, chosen = kmeans(vectors, 16, 0)
    assert len(centres) == 16
    np.testing.assert_array_equal(centres[chosen] == 0, vectors == 0)
    same = (centres[None] == 0) == (vectors[:, None] == 0)
    distance = np.where(same.all(-1), np.square(vectors[:, None] - centres[None]).sum(-1), np.inf)
    np.testing.assert_allclose(distance[np.arange(4000), chosen], distance.min(1))
    assert sum(1 for c in centres if c.all()) > sum(1 for c in centres if not c.all())


def test_zeros_in_more_ways_than_there_are_centres() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((4000, 4)) * (rng.random((4000, 4)) < 0.5)
    centres, chosen = kmeans(vectors, 15, 0)
    np.testing.assert_array_equal(centres[chosen].any(1), vectors.any(1))
    centres, chosen = kmeans(vectors, 16, 0)
    np.testing.assert_array_equal(centres[chosen] == 0, vectors == 0)


def test_vectors_of_a_masked_weight() -> None:
    """What is zero stays zero, in the file of palettes too; where it could not, the weight is left and that is said."""
    pipeline = "score{method=magnitude},mask{sparsity=0.8},palette{bits=4,dim=2},verify"
    result = compiled(pipeline, wide())
    weight = held(result)["2.weight"]
    assert (weight == 0).mean() == pytest.approx(0.8, abs=0.05) and len(np.unique(weight.reshape(-1, 2), axis=0)) <= 16
    assert result.forms["palette"] == 1
    with pytest.raises(UsageError) as caught:
        compiled(pipeline.replace("bits=4,dim=2", "bits=2,dim=9"), wide())
    assert "1 weight whose vectors of 9 are zero in more ways than 4: 2.weight" in caught.value.message
    left = "mask{sparsity=0.8,targets=[2.*]},palette{bits=2,dim=9,least=512}"
    notes = compiled(f"score{{method=magnitude}},{left},verify", wide()).report["notes"]
    assert "palette: 1 weight whose vectors of 9 are zero in more ways than 4 stay as they are: 2.weight" in notes


@pytest.mark.parametrize("dim", [2, 3])
def test_after_layers_chose_their_channels(dim: int) -> None:
    """Layers that read channels which they do not need have zeros for them, which stay."""
    chosen = "score,groups{mode=unconstrained},plan{ratio=0.5},layout{copies=forbid,align=1},eliminate"
    result = compiled(f"{chosen},palette{{bits=6,dim={dim},least=64}},verify")
    assert any((weight == 0).any() for weight in held(result).values())
    assert result.report["verify"]["max_rel_err"] < 1e-5


def test_the_best_centres_of_few_numbers() -> None:
    """Against every way to cut sorted numbers into three."""
    numbers = np.array([0.1, 0.2, 0.25, 2.0, 2.2, 2.3, 9.0, 9.5])
    cuts = [(0, a, b, 8) for a, b in combinations(range(1, 8), 2)]
    best = min(sum(np.var(numbers[i:j]) * (j - i) for i, j in pairwise(c)) for c in cuts)
    centres, chosen = kmeans(numbers[:, None], 3, 0)
    assert np.square(centres[chosen][:, 0] - numbers).sum() == pytest.approx(best)


@pytest.mark.parametrize("d", [1, 2])
def test_each_is_nearest_to_its_centre(d: int) -> None:
    vectors = np.random.default_rng(0).standard_normal((2000, d))
    centres, chosen = kmeans(vectors, 8, 0)
    distance = np.square(vectors[:, None] - centres[None]).sum(-1)
    np.testing.assert_array_equal(chosen, distance.argmin(1))


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ("bits=5", "bits} cannot be 5", "1, 2, 3, 4, 6 or 8"),
        ("dim=0", "dim} cannot be 0", "1 or more"),
        ("dim=257", "dim} cannot be 257", "256 is the most"),
        ("dim=2,method=uniform", "dim takes vectors", "method=kmeans"),
        ("group=-1", "group} cannot be -1", "or 0"),
        ("least=1000000", "no weight is large enough", "least is 1000000"),
        ("group=7", "none of 2.weight divides", "group divides the rows"),
    ],
)
def test_what_cannot_be(options: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        compiled(f"palette{{{options}}}", wide())
    assert message in caught.value.message and hint in (caught.value.hint or "")


def test_the_report_says_what_came_of_it(tmp_path: Any) -> None:
    result = compiled("palette{bits=4},verify", wide(), measure=True)
    packed = result.report["packed"]
    assert packed["forms"] == {"palette": 1, "dense": 1}
    assert packed["gzip_bytes"]["compact"] < 0.3 * packed["gzip_bytes"]["dense"]
    assert not any(note.startswith("nothing was pruned") for note in result.report["notes"])
    result.save(tmp_path / "saved")
    again = prunec.load(tmp_path / "saved")
    assert again.onnx.ByteSize() == result.emit().size_bytes()
