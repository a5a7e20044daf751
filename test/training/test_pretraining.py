"""Classes first (Liang 2019) and true classes as input (MTML): what `instseg train` does when it is asked for them."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_training import boxes_scene, data, small_config  # noqa: F401

from instseg_ros.cli import main
from instseg_ros.config import LossConfig, ModelConfig
from instseg_ros.models.network import InstanceNet
from instseg_ros.models.weights import load_weights
from instseg_ros.training.batches import make_batch
from instseg_ros.training.trainer import Trainer

SMALL = "--model.channels 8 16 --model.embedding-dim 4 --batch-voxels 3000 --batch-scenes 0 --threads 1 --device cpu".split()


def moved(net: InstanceNet, start: InstanceNet) -> set[str]:
    """The first words of the names of parameters that differ."""
    before = start.state_dict()
    return {".".join(n.split(".")[:2]) for n, v in net.named_parameters() if not torch.equal(v, before[n])}


def test_until_the_classes_are_learnt_the_other_heads_stay_as_they_were(data, tmp_path):  # noqa: F811
    config = small_config(steps=3, losses=LossConfig(semantic_first_steps=3), validate_every=100)
    trainer = Trainer(config, data, tmp_path / "run", "cpu")
    start = InstanceNet(config.model)
    start.load_state_dict(trainer.model.state_dict())
    trainer.run()
    first = moved(trainer.model, start)
    assert "heads.semantic" in first and any(name.startswith("backbone") for name in first)
    assert not first & {"heads.embedding", "heads.offset"}
    longer = Trainer(replace(config, steps=4), data, tmp_path / "run", "cpu")  # goes on with all losses
    assert longer.step == 3
    longer.run()
    assert {"heads.semantic", "heads.embedding", "heads.offset"} <= moved(longer.model, start)


def test_the_input_is_the_class_of_the_same_voxel_however_it_was_augmented(data):  # noqa: F811
    from instseg_ros.training.batches import BatchSource

    config = small_config(model=ModelConfig(channels=(8, 16), embedding_dim=4, label_input=True))
    source = BatchSource(sorted((data / "train").glob("*.npz")), config)
    for batch in source.batches(0, 4):
        known = batch.class_index < 20
        one_hot = torch.nn.functional.one_hot(torch.where(known, batch.class_index, 0), 20) * known[:, None]
        assert torch.equal(batch.features[:, :20], one_hot.float()) and known.any()
    scene = boxes_scene(0)
    scene.class_index[:7] = 255
    assert make_batch([scene], config).features[:7, :20].sum() == 0.0


def test_a_network_that_reads_classes_learns_them_at_once_and_another_starts_from_it(data, tmp_path, capsys):  # noqa: F811
    """MTML: pretrain on one-hot ground truth, then go on with what the camera sees."""
    labels = tmp_path / "labels" / "last.safetensors"
    arguments = ["--data", str(data), *SMALL, "--augmentation.rotation", "grid", "--losses.direction", "0", "--model.heads", "semantic", "embedding"]
    unet = ["--model.backbone", "unet", "--grouping.proposal-direction-weight", "0"]
    quick = ["--steps", "60", "--learning-rate", "0.01", "--model.label-input", "true", "--losses.semantic", "5", "--out", str(labels.parent)]
    assert main(["train", "mtml", *arguments, *unet, *quick]) == 0
    accuracy = float(re.search(r"accuracy (\d\.\d+)", capsys.readouterr().out)[1])
    assert accuracy > 0.9  # of the validation scene: the answer is in the question
    donor = load_weights(labels)
    assert donor.config.label_input
    out = tmp_path / "colors"
    assert main(["train", "mtml", *arguments, *unet, "--steps", "1", "--learning-rate", "0", "--init", str(labels), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"not in it: backbone\.stem\.weight\n", said)
    net = load_weights(out / "last.safetensors")
    assert not net.config.label_input
    theirs, mine = dict(donor.named_parameters()), dict(net.named_parameters())
    for name, value in mine.items():
        if name != "backbone.stem.weight":
            assert torch.allclose(value, theirs[name], atol=1e-3), name
    assert mine["backbone.stem.weight"].shape != theirs["backbone.stem.weight"].shape


@pytest.mark.parametrize("preset", ["toy", "mtml"])
def test_labels_are_an_input_of_every_preset_that_is_asked_for_them(preset, data, tmp_path):  # noqa: F811
    arguments = ["--data", str(data), "--steps", "1", *SMALL, "--out", str(tmp_path), *(["--model.label-input", "true"] if preset == "mtml" else [])]
    assert main(["train", preset, *arguments]) == 0
    config = load_weights(tmp_path / "last.safetensors").config
    assert config.label_input and config.backbone == "dilated" and np.prod(config.channels) == 128
