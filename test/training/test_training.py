"""Batches, augmentation and the training loop on scenes small enough for two iterations in a test."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from instseg_ros.cli import main
from instseg_ros.config import AugmentationConfig, LossConfig, ModelConfig, TrainingConfig
from instseg_ros.datasets.augmentation import augment, dye_objects, symmetry
from instseg_ros.datasets.scenes import VoxelScene, save_scene
from instseg_ros.errors import ConfigError, DataError, WeightsError
from instseg_ros.labels import CLASS_NAMES
from instseg_ros.models.network import InstanceNet
from instseg_ros.models.weights import load_weights, save_weights, weights_metadata
from instseg_ros.presets import preset_file
from instseg_ros.settings import load_yaml
from instseg_ros.training.average import average_networks, estimate_norms
from instseg_ros.training.batches import BatchSource, make_batch
from instseg_ros.training.objective import objective
from instseg_ros.training.trainer import Trainer


def boxes_scene(seed: int) -> VoxelScene:
    """A floor with three solid boxes of three classes."""
    rng = np.random.default_rng(seed)
    floor = np.argwhere(np.ones((40, 40, 1), bool))
    parts, classes, instances = [floor], [np.full(len(floor), 1)], [np.full(len(floor), -1)]
    for i, (x, y) in enumerate([(4, 4), (16, 20), (28, 8)]):
        box = np.argwhere(np.ones(rng.integers(4, 8, 3), bool)) + [x, y, 1]
        parts.append(box)
        classes.append(np.full(len(box), 4 + i))
        instances.append(np.full(len(box), i))
    coords = np.concatenate(parts).astype(np.int32)
    class_index = np.concatenate(classes).astype(np.uint8)
    colors = (class_index[:, None] * [12, 7, 3] + rng.integers(0, 9, (len(coords), 3))).astype(np.uint8)
    return VoxelScene(f"boxes_{seed}", 0.05, coords, colors, class_index, np.concatenate(instances).astype(np.int32))


@pytest.fixture()
def data(tmp_path):
    for split, count in (("train", 3), ("validation", 1)):
        (tmp_path / "data" / split).mkdir(parents=True)
        for i in range(count):
            save_scene(tmp_path / "data" / split / f"room_{i:04d}.npz", boxes_scene(i))
    return tmp_path / "data"


def small_config(**changes) -> TrainingConfig:
    model = ModelConfig(channels=(8, 16), embedding_dim=4)
    return TrainingConfig(**{"steps": 2, "batch_voxels": 3000, "validate_every": 2, "checkpoint_every": 1, "model": model, **changes})


def test_scenes_of_a_batch_do_not_touch():
    scenes = [boxes_scene(i) for i in range(3)]
    config = small_config()
    together = make_batch(scenes, config)
    alone = [make_batch([s], config) for s in scenes]
    net = InstanceNet(config.model).eval()
    with torch.no_grad():
        want = torch.cat([net(b.features, b.tables)["embedding"] for b in alone])
        assert torch.allclose(net(together.features, together.tables)["embedding"], want, atol=1e-5)
    assert together.scene_of_instance.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_offsets_lead_to_the_centre():
    scene = boxes_scene(0)
    batch = make_batch([scene], small_config())
    points = scene.coords[batch.members.numpy()] * 0.05 + batch.offset.numpy()
    for i in range(3):
        mine = batch.instance.numpy() == i
        center = scene.coords[batch.members.numpy()][mine].mean(0) * 0.05
        assert np.allclose(points[mine], center, atol=1e-5)


def test_dyed_objects_keep_what_is_not_chosen():
    scene = boxes_scene(0)
    rng = np.random.default_rng(1)
    same, all_dyed = dye_objects(scene, rng, 0.0), dye_objects(scene, rng, 1.0)
    assert np.array_equal(same.colors, scene.colors)
    background = scene.instance < 0
    assert np.array_equal(all_dyed.colors[background], scene.colors[background])
    for i in range(3):
        mine = scene.instance == i
        assert not np.array_equal(all_dyed.colors[mine], scene.colors[mine])
        order = np.argsort(scene.colors[mine][:, 0], kind="stable")  # one dye for the whole object: shades keep their order
        assert any((np.diff(all_dyed.colors[mine][order][:, k].astype(int)) >= 0).all() for k in range(3))


def test_small_pieces_are_left_out():
    scene = boxes_scene(0)
    keep = (scene.instance != 1) | (np.cumsum(scene.instance == 1) <= 5)
    cut = VoxelScene("cut", 0.05, scene.coords[keep], scene.colors[keep], scene.class_index[keep], scene.instance[keep])
    batch = make_batch([cut], small_config())
    assert len(batch.scene_of_instance) == 2
    assert set(batch.instance.tolist()) == {0, 1}


@pytest.mark.parametrize("which", range(8))
def test_symmetries_keep_the_voxels_apart(which):
    scene = boxes_scene(0)
    turned = symmetry(scene, which)
    assert len(np.unique(turned.coords, axis=0)) == len(scene.coords)
    assert np.array_equal(np.sort(turned.coords[:, 2]), np.sort(scene.coords[:, 2]))


def test_augmentation_keeps_voxels_with_their_labels():
    scene = boxes_scene(0)
    labels = {tuple(c): k for c, k in zip(symmetry(scene, 0).coords.tolist(), scene.class_index, strict=True)}
    rng = np.random.default_rng(3)
    config = AugmentationConfig(crop_m=1.0)
    for _ in range(5):
        out = augment(scene, config, rng)
        assert len(out.coords) == len(out.colors) == len(out.class_index) == len(out.instance) < len(scene.coords)
        heights = {c[2]: k for c, k in labels.items()}
        assert set(out.coords[:, 2].tolist()) <= set(heights)
        assert (out.class_index[out.coords[:, 2] == 0] == 1).all()


def test_batches_depend_on_seed_and_step_alone(data):
    source = BatchSource(sorted((data / "train").glob("*.npz")), small_config())
    again = list(source.batches(1, 3))
    assert torch.equal(source.batch(2).features, again[1].features)
    assert not torch.equal(again[0].features[:50], again[1].features[:50])


def test_micro_batches_differ_and_the_first_is_the_batch_there_always_was(data):
    source = BatchSource(sorted((data / "train").glob("*.npz")), small_config(seed=5))
    assert np.array_equal(np.random.default_rng([5, 7]).random(9), np.random.default_rng([5, 7, 0]).random(9))
    mine = list(source.batches(7, 9, range(1, 4, 2)))
    for batch, (step, index) in zip(mine, [(7, 1), (7, 3), (8, 1), (8, 3)], strict=True):
        assert torch.equal(batch.features, source.batch(step, index).features)
    assert len({tuple(b.features[:50].flatten().tolist()) for b in [source.batch(7), *mine]}) == 5


def test_losses_fall_when_one_batch_is_learnt():
    torch.manual_seed(0)
    config = small_config()
    batch, net = make_batch([boxes_scene(0)], config), InstanceNet(config.model)
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    history = []
    for _ in range(60):
        terms = objective(net(batch.features, batch.tables), batch, config.losses, torch.ones(20))
        history.append({k: v.item() for k, v in terms.items()})
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
    assert history[-1]["semantic"] < 0.5 * history[0]["semantic"]
    assert history[-1]["push"] < 0.7 * history[0]["push"]


def test_two_iterations_leave_usable_weights(data, tmp_path):
    figures = Trainer(small_config(), data, tmp_path / "run", "cpu", "rooms").run()
    assert set(figures) == {"ap", "ap50", "ap25", "accuracy"}
    metadata = weights_metadata(tmp_path / "run" / "last.safetensors")
    assert metadata["classes"] == list(CLASS_NAMES[4:7]) and metadata["step"] == 2
    net = load_weights(tmp_path / "run" / "best.safetensors")
    assert net.config.channels == (8, 16)
    assert list((tmp_path / "run").glob("events.out.tfevents*"))


def test_a_stopped_run_ends_as_one_that_was_not(data, tmp_path):
    straight = Trainer(small_config(steps=4), data, tmp_path / "a", "cpu")
    straight.run()
    first = Trainer(small_config(steps=4), data, tmp_path / "b", "cpu")
    batches = BatchSource(first.train_files, first.config)
    for step in range(2):
        first._step([batches.batch(step)])
        first.step += 1
    first._save_checkpoint()
    second = Trainer(small_config(steps=4), data, tmp_path / "b", "cpu")
    assert second.step == 2
    second.run()
    for a, b in zip(straight.model.state_dict().values(), second.model.state_dict().values(), strict=True):
        assert torch.allclose(a.float(), b.float(), atol=1e-4)


def test_missing_scenes_name_the_cure(tmp_path):
    with pytest.raises(DataError, match="instseg simulate"):
        Trainer(small_config(), tmp_path, tmp_path / "run", "cpu")


def test_a_foreign_checkpoint_is_refused(data, tmp_path):
    Trainer(small_config(), data, tmp_path / "run", "cpu")._save_checkpoint()
    with pytest.raises(DataError, match="--fresh"):
        Trainer(small_config(model=ModelConfig(channels=(8, 8, 8))), data, tmp_path / "run", "cpu")


def test_weights_files_are_checked(tmp_path):
    with pytest.raises(WeightsError, match="instseg train"):
        load_weights(tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match="no weights named nonesuch, only .*rooms.*instseg train nonesuch"):
        load_weights("nonesuch")
    assert weights_metadata("rooms") == weights_metadata("")
    (tmp_path / "bad.safetensors").write_bytes(b"not tensors at all")
    with pytest.raises(WeightsError, match="safetensors"):
        load_weights(tmp_path / "bad.safetensors")
    net = InstanceNet(ModelConfig(channels=(8,)))
    save_weights(tmp_path / "good.safetensors", net, {"classes": ["chair"]})
    assert weights_metadata(tmp_path / "good.safetensors")["classes"] == ["chair"]
    for kept, given in zip(load_weights(tmp_path / "good.safetensors").parameters(), net.parameters(), strict=True):
        assert kept.dtype == torch.float32 and torch.allclose(kept, given, rtol=1e-3, atol=1e-6)
    with safe_open(str(tmp_path / "good.safetensors"), "pt") as file:
        assert json.loads(file.metadata()["model"])["channels"] == [8]


def test_the_preset_is_valid_and_unknown_ones_are_named():
    assert load_yaml(TrainingConfig, preset_file("rooms")).model.voxel_size_m == 0.05
    with pytest.raises(ConfigError, match="rooms"):
        preset_file("no_such_preset")


def test_a_run_starts_from_the_weights_of_a_deeper_network(data, tmp_path):
    config = small_config()
    deep = InstanceNet(ModelConfig(channels=(8, 16, 24), embedding_dim=4))
    save_weights(tmp_path / "deep.safetensors", deep, {})
    trainer = Trainer(config, data, tmp_path / "run", init=tmp_path / "deep.safetensors")
    assert trainer.new_tensors == []
    for name, value in trainer.model.state_dict().items():
        assert torch.allclose(value.float(), deep.state_dict()[name].float(), atol=1e-3), name
    deeper = Trainer(replace(config, model=ModelConfig(channels=(8, 16, 24, 32), embedding_dim=4)), data, tmp_path / "run4",
                     init=tmp_path / "deep.safetensors")
    assert deeper.new_tensors and all(".3." in n or "down.2" in n or "up.2" in n or "decoder.2" in n for n in deeper.new_tensors)
    with pytest.raises(WeightsError, match="--model.voxel-size-m 0.05"):
        Trainer(replace(config, model=replace(config.model, voxel_size_m=0.02)), data, tmp_path / "run2", init=tmp_path / "deep.safetensors")


ALL_HEADS = ("semantic", "embedding", "offset", "direction", "covariance", "occupancy")


def test_every_loss_of_the_papers_falls_on_one_batch():
    torch.manual_seed(0)
    config = small_config(
        model=ModelConfig(channels=(8, 16), embedding_dim=4, heads=ALL_HEADS),
        losses=LossConfig(squared=True, regularization=0.001, direction=1.0, offset_norm="l2", covariance=1.0, occupancy=1.0))
    batch, net = make_batch([boxes_scene(0), boxes_scene(1)], config), InstanceNet(config.model)
    optimizer, history = torch.optim.Adam(net.parameters(), 5e-3), []
    for _ in range(60):
        terms = objective(net(batch.features, batch.tables), batch, config.losses, torch.ones(20))
        history.append({k: v.item() for k, v in terms.items()})
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
    assert set(history[0]) == {"semantic", "pull", "push", "regularization", "offset", "direction", "covariance", "occupancy"}
    for name in ("semantic", "offset", "direction", "covariance", "occupancy"):
        assert history[-1][name] < history[0][name] - 0.2 * abs(history[0][name]), (name, history[0][name], history[-1][name])


def test_both_embeddings_of_a_refined_network_are_learnt_and_classes_come_first():
    config = LossConfig(structure=True, pull_margin=0.7, push_margin=0.75, squared=True, offset=0.0, semantic_first_steps=5)
    batch = make_batch([boxes_scene(0)], small_config())
    torch.manual_seed(0)
    first, refined = torch.randn(2, len(batch.features), 4).unbind()
    outputs = {"semantic": torch.zeros(len(first), 20), "embedding": refined, "embedding_initial": first}
    alone = [objective({"semantic": outputs["semantic"], "embedding": e}, batch, config, torch.ones(20)) for e in (first, refined)]
    both = objective(outputs, batch, config, torch.ones(20))
    for name in ("pull", "push"):
        assert both[name].item() == pytest.approx(alone[0][name].item() + alone[1][name].item(), rel=1e-5)
    assert set(objective(outputs, batch, config, torch.ones(20), step=4)) == {"semantic"}
    assert set(objective(outputs, batch, config, torch.ones(20), step=5)) == {"semantic", "pull", "push"}


def test_a_head_without_a_loss_and_a_loss_without_a_head_are_refused(data, tmp_path):
    with pytest.raises(ConfigError, match="losses.direction.*add it to model.heads"):
        Trainer(small_config(losses=LossConfig(direction=1.0)), data, tmp_path / "run", "cpu")
    with pytest.raises(ConfigError, match="occupancy, which no loss trains: set losses.occupancy"):
        Trainer(small_config(model=ModelConfig(channels=(8,), heads=("semantic", "embedding", "offset", "occupancy"))), data, tmp_path / "run", "cpu")


@pytest.mark.parametrize(("schedule", "want"), [("constant", [1.0, 1.0, 1.0]), ("decay", [1.0, 1.0, 0.8]), ("one_cycle", [1.0, 1.0, 0.5])])
def test_schedules(data, tmp_path, schedule, want):
    config = small_config(steps=3, schedule=schedule, decay_every=2, learning_rate=1.0, warmup=0.0)
    trainer = Trainer(config, data, tmp_path / "run", "cpu")
    assert [trainer.learning_rate(step) for step in range(3)] == pytest.approx(want)


def test_weights_are_averaged_and_their_norms_estimated(data, tmp_path):
    torch.manual_seed(0)
    config = ModelConfig(channels=(8, 12), embedding_dim=4)
    one, other = InstanceNet(config), InstanceNet(config)
    middle = average_networks(one, other, 0.25)
    for name, value in middle.named_parameters():
        assert torch.allclose(value, 0.75 * one.get_parameter(name) + 0.25 * other.get_parameter(name), atol=1e-6)
    batches = [make_batch([boxes_scene(i)], small_config()) for i in range(2)]
    estimate_norms(middle, batches)
    seen, estimated = [], middle.backbone.stem.norm.running_mean.clone()
    middle.backbone.stem.norm.register_forward_pre_hook(lambda module, x: seen.append(x[0].mean(0)))
    middle.train()
    for batch in batches:
        middle(batch.features, batch.tables)
    assert len(seen) == 2 and torch.allclose(estimated, torch.stack(seen).mean(0), atol=1e-5)
    with pytest.raises(WeightsError, match="embedding_dim 4 and 8"):
        average_networks(one, InstanceNet(replace(config, embedding_dim=8)), 0.5)


def test_the_average_of_a_file_with_itself_says_the_same(data, tmp_path):
    net = InstanceNet(ModelConfig(channels=(8, 12)))
    save_weights(tmp_path / "a.safetensors", net, {"classes": ["chair"], "grouping": {"min_voxels": 7}})
    out = tmp_path / "b.safetensors"
    files = [str(tmp_path / "a.safetensors")] * 2
    assert main(["average", *files, "--out", str(out), "--data", str(data), "--batches", "2", "--share", "0.3"]) == 0
    again, metadata = load_weights(out), weights_metadata(out)
    assert metadata["classes"] == ["chair"] and metadata["averaged"]["share"] == 0.3 and metadata["grouping"] == {"min_voxels": 7}
    for name, value in again.named_parameters():
        assert torch.allclose(value, net.get_parameter(name), rtol=2e-3, atol=1e-6)
    assert main(["average", *files, "--out", str(out), "--data", str(data), "--share", "2"]) == 2
