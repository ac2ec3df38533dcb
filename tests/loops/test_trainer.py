"""``prunec.train`` in Hugging Face's Trainer: each epoch is told once, and its checkpoints resume."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import IterableDataset

import prunec
from prunec.ir.errors import UsageError

from .running import EPOCHS, IMAGES, LABELS, RECIPE, layers, runs_and_resumes

_WHY = "the loop is that of transformers with accelerate, which `.[loops]` installs"
transformers = pytest.importorskip("transformers", reason=_WHY)
pytest.importorskip("accelerate", reason=_WHY)

DATA = [{"images": x, "labels": y} for x, y in zip(IMAGES, LABELS, strict=True)]
STEPS = len(DATA) // 32


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = layers()

    def forward(self, images: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.layers(images)
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


def trainer(sparse: Any, folder: Path, data: Any = DATA, **options: Any) -> Any:
    from prunec.loops.trainer import SparseCallback

    given = {
        "num_train_epochs": EPOCHS, "save_strategy": "epoch", "eval_strategy": "epoch", "logging_strategy": "epoch",
        "lr_scheduler_type": "constant", "learning_rate": 1e-2, "per_device_train_batch_size": 32,
        "report_to": "none", "disable_tqdm": True, "use_cpu": True, **options,
    }  # fmt: skip
    return transformers.Trainer(
        sparse.model,
        transformers.TrainingArguments(str(folder), **given),
        train_dataset=data,
        eval_dataset=DATA,
        compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(1) == found.label_ids).mean())},
        callbacks=[SparseCallback(sparse)],
    )


@pytest.mark.parametrize(
    ("options", "step"),
    [
        ({}, 2 * STEPS),
        ({"save_strategy": "steps", "save_steps": STEPS}, 2 * STEPS),
        ({"save_strategy": "steps", "save_steps": 2}, 2 * STEPS + 2),
        ({"restore_callback_states_from_checkpoint": True}, 2 * STEPS),
        ({}, EPOCHS * STEPS),
    ],
    ids=["epoch", "last step", "mid epoch", "restored callbacks", "the end"],
)
def test_resumed(options: dict[str, Any], step: int, tmp_path: Path) -> None:
    """The same weights and history as without a break, from a checkpoint of an epoch's end or of its middle."""
    with prunec.train(Network(), RECIPE) as whole:
        trainer(whole, tmp_path, **options).train()
    with prunec.train(Network(), RECIPE) as resumed:
        trainer(resumed, tmp_path, **options).train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    assert resumed.history == whole.history or options.get("save_strategy") == "steps"  # before it was logged
    for found in (whole, resumed):
        assert [entry["epoch"] for entry in found.history] == [1, 2, 3, 4]
        assert [entry["sparsity"] for entry in found.history] == pytest.approx([0, 0.4, 0.8, 0.8], abs=1e-3)
    for (name, one), two in zip(whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(one, two), name


def test_the_history_has_what_was_logged(tmp_path: Path) -> None:
    """Of the same epoch: what the masks of that epoch came to, not the next one's."""
    with prunec.train(Network(), "pdp{sparsity=0.9,warm=3,rise=1}") as sparse:
        run = trainer(sparse, tmp_path, save_strategy="no")
        run.train()
    logged = {entry["epoch"]: entry["eval_accuracy"] for entry in run.state.log_history if "eval_accuracy" in entry}
    assert [entry["eval_accuracy"] for entry in sparse.history] == [logged[k] for k in (1.0, 2.0, 3.0, 4.0)]
    assert set(sparse.history[0]) == {"epoch", "loss", "sparsity", "eval_loss", "eval_accuracy"}
    assert all(entry["loss"] is not None for entry in sparse.history)


def test_a_second_training_goes_on(tmp_path: Path) -> None:
    with prunec.train(Network(), RECIPE) as sparse:
        for _ in range(2):
            trainer(sparse, tmp_path, save_strategy="no", num_train_epochs=2).train()
    assert [entry["epoch"] for entry in sparse.history] == [1, 2, 3, 4]


def test_what_cannot_be_resumed(tmp_path: Path) -> None:
    first = prunec.train(Network(), RECIPE)
    run = trainer(first, tmp_path, num_train_epochs=1)
    run.train()
    saved = str(tmp_path / f"checkpoint-{STEPS}")
    other = prunec.train(Network(), "pdp{sparsity=0.5}")
    with pytest.raises(UsageError, match=r"the checkpoint is of the recipe.*sparsity=0.8"):
        trainer(other, tmp_path).train(resume_from_checkpoint=saved)
    run.remove_callback(run.callback_handler.callbacks[-1])
    run.state.stateful_callbacks.pop("prunec")
    run.state.save_to_json(f"{saved}/trainer_state.json")
    with pytest.raises(UsageError, match="the checkpoint of step 3 has no state of prunec"):
        trainer(prunec.train(Network(), RECIPE), tmp_path).train(resume_from_checkpoint=saved)
    with pytest.raises(UsageError, match="its best model at the end"):
        trainer(prunec.train(Network(), RECIPE), tmp_path, load_best_model_at_end=True).train()


class Nothing(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return iter(())


def test_a_loader_that_yields_nothing(tmp_path: Path) -> None:
    """Trainer itself warns and is content."""
    sparse = prunec.train(Network(), RECIPE)
    options = {"max_steps": 5, "save_strategy": "no", "accelerator_config": {"dispatch_batches": False}}
    with pytest.raises(UsageError, match="no batch went through the model"):
        trainer(sparse, tmp_path, Nothing(), **options).train()
    assert not sparse.history


def bert() -> Any:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=17, num_labels=10
    )
    return transformers.BertForSequenceClassification(config)


def test_a_model_of_transformers(tmp_path: Path) -> None:
    """Their models save and load by rules of their own; what they leave out is no warning but an error."""
    text = [{"input_ids": (8 * (x + 1)).long(), "labels": y} for x, y in zip(IMAGES, LABELS, strict=True)]
    with prunec.train(bert(), RECIPE) as whole:
        trainer(whole, tmp_path, text, eval_strategy="no").train()
    saved = tmp_path / f"checkpoint-{2 * STEPS}"
    with prunec.train(bert(), RECIPE) as resumed:
        trainer(resumed, tmp_path, text, eval_strategy="no").train(resume_from_checkpoint=str(saved))
    assert resumed.history == whole.history
    for (name, one), two in zip(whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(one, two), name
    weights = load_file(saved / "model.safetensors")
    del weights["bert.pooler.dense.parametrizations.weight.original"]
    save_file(weights, saved / "model.safetensors")
    with pytest.raises(UsageError, match=r"has not loaded bert\.pooler\.dense\.weight from the checkpoint"):
        trainer(prunec.train(bert(), RECIPE), tmp_path, text).train(resume_from_checkpoint=str(saved))


def test_the_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs_and_resumes("trainer_digits", tmp_path, capsys)
