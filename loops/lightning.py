"""``prunec.train`` in the Trainer of Lightning."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ..ir.errors import UsageError
from ..passes.train.history import KEPT
from ..passes.train.sparse import Sparse


class SparseCallback(Callback):
    """Tells ``sparse`` of each epoch that ends, and has Lightning's checkpoints hold its state.

    loss: the name under which the module logs the loss of training (``self.log("train_loss", …, on_epoch=True)``); what
    else it logs goes into the history as metrics (``epoch``, ``loss`` and ``sparsity`` as ``logged_epoch`` and so on).
    ``trainer.fit(…, ckpt_path=…)`` goes on from a checkpoint.

    Raises
    ------
    UsageError
        When a checkpoint is loaded: it has no state of ``sparse``, or one of another recipe.

    Examples
    --------
    >>> with prunec.train(module, "pdp{sparsity=0.9,warm=2,rise=10}") as sparse:        # doctest: +SKIP
    ...     Trainer(max_epochs=20, callbacks=[SparseCallback(sparse)]).fit(module, loader)
    """

    def __init__(self, sparse: Sparse, loss: str = "train_loss") -> None:
        self.sparse, self.loss = sparse, loss
        self._told: int | None = None
        """How many of the Trainer's epochs ``sparse`` knows of; None before the first."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._told is not None and self._told < trainer.current_epoch:
            self.sparse.step()  # the checkpoint is of an epoch's last batch: Lightning does not end that epoch again
        self._told = trainer.current_epoch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        found = {n: float(value) for n, value in trainer.callback_metrics.items() if not n.endswith("_step")}
        loss = found.pop(self.loss, None)
        self.sparse.step(loss, **{f"logged_{n}" if n in KEPT else n: value for n, value in found.items()})
        self._told = trainer.current_epoch + 1

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._told = None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.state_key not in checkpoint["callbacks"]:
            raise UsageError(
                f"SparseCallback: the checkpoint of epoch {checkpoint.get('epoch')} has no state of prunec",
                hint="resume from a checkpoint of a Trainer with this callback",
            )

    def state_dict(self) -> dict[str, Any]:
        return {"sparse": self.sparse.state_dict(), "told": self._told}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.sparse.load_state_dict(state_dict["sparse"])
        self._told = state_dict["told"]
