"""Every backbone, with and without the refined embedding, trains in the trainer."""

import numpy as np
import pytest
import torch
from test_training import data, small_config  # noqa: F401

from instseg_ros.config import ModelConfig
from instseg_ros.models.weights import load_weights
from instseg_ros.training.trainer import Trainer


@pytest.mark.parametrize("refine_layers", [0, 2])
@pytest.mark.parametrize("backbone", ["unet", "residual_unet", "dilated"])
def test_every_backbone_trains(data, tmp_path, backbone, refine_layers):  # noqa: F811
    model = ModelConfig(channels=(8, 16), embedding_dim=4, backbone=backbone, encoder_blocks=(1, 2), dilations=(1, 2), refine_layers=refine_layers)
    trainer = Trainer(small_config(model=model), data, tmp_path / "run", device="cpu")
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    figures = trainer.run()
    assert trainer.step == 2 and np.isfinite(list(figures.values())).all()
    after = trainer.model.state_dict()
    assert all(torch.isfinite(v).all() for v in after.values())
    unmoved = [k for k, v in trainer.model.named_parameters() if torch.equal(before[k], v)]
    assert not unmoved, unmoved
    loaded = load_weights(tmp_path / "run" / "last.safetensors")
    assert loaded.config == model
