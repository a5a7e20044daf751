"""The Triton kernels against sums written out in float64; run by test_triton_kernels.py, or alone:

    TRITON_INTERPRET=1 pytest test/sparse/triton_checks.py     # on the CPU, with Triton's interpreter
    pytest test/sparse/triton_checks.py                        # on a GPU

Not collected with the other tests: the interpreter has to be asked for before Triton is first imported.
"""

import numpy as np
import pytest
import torch

from instseg_ros.config import ModelConfig
from instseg_ros.errors import InputError
from instseg_ros.models.network import InstanceNet
from instseg_ros.models.refine import AttentionKnn, attend
from instseg_ros.sparse import triton_kernels, triton_updates
from instseg_ros.sparse.conv import only_path, sparse_conv
from instseg_ros.sparse.neighborhood import nearest_columns
from instseg_ros.sparse.program import compile_network
from instseg_ros.sparse.pyramid import build_tables

DEVICE = "cpu" if triton_kernels.interpreted() else "cuda"
RELATIVE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}

pytestmark = pytest.mark.skipif(not triton_kernels.available(), reason="needs Triton and a GPU or TRITON_INTERPRET=1")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def random_table(rows, inputs, taps, fill=0.4):
    table = torch.randint(0, inputs, (rows, taps), dtype=torch.int32)
    return table.masked_fill_(torch.rand(rows, taps) > fill, -1).to(DEVICE)


def random(*shape, dtype=torch.float32):
    return torch.randn(*shape).to(DEVICE, dtype)


def plain(x, table, weight, bias=None, residual=None, relu=False, rows=None):
    """The definition, in float64 on the values as the kernel reads them."""
    if rows is not None:
        table, residual = table[rows.long()], None if residual is None else residual[rows.long()]
    padded = torch.cat([x, x.new_zeros(1, x.shape[1])]).double()
    out = torch.einsum("nki,kio->no", padded[table.long()], weight.to(x.dtype).double())
    out = out if bias is None else out + bias.double()
    out = out if residual is None else out + residual.double()
    return out.relu() if relu else out


def assert_close(got, want, dtype):
    scale = want.abs().max().item() + 1e-6
    assert got.shape == want.shape
    assert (got.double() - want).abs().max().item() <= RELATIVE[dtype] * scale


@pytest.mark.parametrize("dtype", triton_kernels.DTYPES)
@pytest.mark.parametrize(("rows", "taps", "cin", "cout"), [(1, 27, 6, 20), (37, 27, 16, 32), (33, 8, 32, 20), (16, 8, 3, 1)])
def test_conv_is_the_sum(dtype, rows, taps, cin, cout):
    x, weight = random(50, cin, dtype=dtype), random(taps, cin, cout)
    table = random_table(rows, 50, taps)
    out = triton_kernels.conv(x, table, weight)
    assert out.dtype == dtype
    assert_close(out, plain(x, table, weight), dtype)


@pytest.mark.parametrize("index", [torch.int32, torch.int64])
def test_rows_bias_residual_and_relu(index):
    x, weight, bias = random(50, 6), random(8, 6, 20), random(20)
    table, residual = random_table(40, 50, 8), random(40, 20)
    rows = torch.randperm(40)[:19].to(DEVICE, index)
    for some in (None, rows):
        for relu in (False, True):
            got = triton_kernels.conv(x, table, weight, bias, residual, relu, some)
            assert_close(got, plain(x, table, weight, bias, residual, relu, some), torch.float32)


def test_rows_without_neighbours_are_the_bias():
    table = random_table(40, 20, 27)
    table[:32] = -1  # whole blocks, and
    table[35] = -1  # a row within one
    x, weight, bias = random(20, 4), random(27, 4, 8), random(8)
    out = triton_kernels.conv(x, table, weight, bias)
    assert torch.equal(out[:32], bias.expand(32, 8))
    assert torch.equal(out[35], bias)
    assert_close(out, plain(x, table, weight, bias), torch.float32)


def test_no_table_is_a_matrix_product():
    x, weight, bias = random(21, 32), random(1, 32, 20), random(20)
    own = torch.arange(21, device=DEVICE)[:, None]
    assert_close(triton_kernels.conv(x, None, weight, bias, relu=True), plain(x, own, weight, bias, relu=True), torch.float32)
    rows = torch.tensor([3, 20, 0], device=DEVICE)
    assert_close(triton_kernels.conv(x, None, weight, bias, rows=rows), plain(x, own[rows], weight, bias), torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_more_channels_than_a_tile(dtype):
    x, weight = random(9, 70, dtype=dtype), random(2, 70, 150) / 8
    table = random_table(20, 9, 2)
    assert_close(triton_kernels.conv(x, table, weight), plain(x, table, weight), dtype)


@pytest.mark.parametrize("block_m", [16, 32, 64, 128])
def test_every_tile_gives_the_same(block_m):
    x, weight, table = random(50, 20), random(8, 20, 24), random_table(70, 50, 8)
    for block_k in (16, 32):
        tiles = triton_kernels.Tiles(block_m, 32, block_k, warps=4)
        assert_close(triton_kernels.conv(x, table, weight, tiles=tiles), plain(x, table, weight), torch.float32)


def test_tensors_with_gaps_in_memory():
    x, weight = random(50, 12)[::2, :6], random(8, 20, 6).transpose(1, 2)
    table, residual = random_table(30, 25, 16)[:, ::2], random(30, 40)[:, ::2]
    assert_close(triton_kernels.conv(x, table, weight, None, residual), plain(x, table, weight, None, residual), torch.float32)


def test_no_rows():
    weight = random(27, 4, 8)
    empty = torch.zeros(0, 27, dtype=torch.int32, device=DEVICE)
    assert triton_kernels.conv(random(0, 4), empty, weight).shape == (0, 8)
    assert triton_kernels.weight_grad(random(0, 4), empty, random(0, 8)).abs().sum() == 0
    assert triton_updates.update(random(0, 4), empty, None, weight, None, None, True, random(0, 8), 0.0).shape == (0,)


def test_shapes_that_do_not_fit_are_refused():
    x, table = random(5, 4), random_table(5, 5, 8)
    with pytest.raises(InputError, match="do not fit"):
        triton_kernels.conv(x, table, random(27, 4, 8))
    with pytest.raises(InputError, match="do not fit"):
        triton_kernels.conv(x, table, random(8, 6, 8))
    with pytest.raises(InputError, match="up to 256"):
        triton_updates.update(x, table, None, random(8, 4, 300), None, None, False, random(5, 300), 0.0)
    with pytest.raises(InputError, match="up to 2 layers"):
        triton_updates.update(x, table, None, random(8, 4, 8), None, None, False, random(5, 8), 0.0, readers=[reader(5, 5)])
    with pytest.raises(InputError, match="contiguous"):
        triton_updates.update(x, table, None, random(8, 4, 8), None, None, False, random(5, 16)[:, ::2], 0.0)


@pytest.mark.parametrize("dtype", triton_kernels.DTYPES)
@pytest.mark.parametrize("on_device", [False, True])
def test_update_replaces_what_moved(dtype, on_device):
    """Rows move by 0, 0.9, 1.1 or 3 thresholds in one channel; fresh ones are replaced, rows not asked for stay."""
    count, cout, threshold = 40, 20, 0.5
    x, weight, bias = random(count, 6, dtype=dtype), random(8, 6, cout) / 4, random(cout)
    table, residual = random_table(count, count, 8), random(count, cout, dtype=dtype)
    want = triton_kernels.conv(x, table, weight, bias, residual, relu=True)
    step = torch.tensor([0.0, 0.9, 1.1, 3.0]).repeat(count // 4) * threshold
    cache = want.clone()
    cache[torch.arange(count), torch.randint(0, cout, (count,))] += step.to(DEVICE, dtype)
    before = cache.clone()
    fresh = torch.zeros(count, dtype=torch.bool, device=DEVICE)
    fresh[[0, 1, 5, 39]] = True
    cache[5] = float("nan")
    rows = torch.randperm(count)[:30]
    rows[7] = -1
    rows = rows.to(DEVICE, torch.int32)
    limit = torch.tensor([threshold], device=DEVICE) if on_device else threshold
    moved = triton_updates.update(x, table, rows, weight, bias, residual, True, cache, limit, fresh)

    asked = torch.zeros(count, dtype=torch.bool)
    asked[rows[rows >= 0].long().cpu()] = True
    should = asked & ((step > threshold) | fresh.cpu())
    assert moved.dtype == torch.bool
    assert moved.cpu().tolist() == [bool(r >= 0 and should[r]) for r in rows.cpu()]
    expected = triton_kernels.conv(x, table, weight, bias, residual, relu=True, rows=rows)  # which rounds like it, row by row
    assert torch.equal(cache[rows[moved].long()], expected[moved])
    should = should.to(DEVICE)
    assert torch.equal(cache[~should].nan_to_num(7), before[~should].nan_to_num(7))


def test_update_without_a_threshold_follows_every_change():
    x, weight, table = random(30, 6), random(8, 6, 16), random_table(30, 30, 8)
    cache = torch.zeros(30, 16, device=DEVICE)
    everything = torch.ones(30, dtype=torch.uint8, device=DEVICE)
    assert triton_updates.update(x, table, None, weight, None, None, True, cache, 0.0, everything).all()
    assert not triton_updates.update(x, table, None, weight, None, None, True, cache, 0.0).any()
    x[4] += 1.0
    moved = triton_updates.update(x, table, None, weight, None, None, True, cache, 0.0)
    reads = (table == 4).any(dim=1)
    assert moved.any()
    assert not (moved & ~reads).any()
    assert torch.equal(cache, triton_kernels.conv(x, table, weight, relu=True))


def listed(reader: triton_updates.Reader) -> list[int]:
    """Its rows, each once, at the beginning of the list; the rest of it untouched."""
    count = min(int(reader.number), len(reader.due))
    rows = reader.due[:count].tolist()
    assert (reader.due[count:] == -1).all() and len(set(rows)) == count
    return sorted(rows)


def reader(rows, length, table=None, taken=()):
    stamp, due = torch.zeros(rows + 1, dtype=torch.int32, device=DEVICE), torch.full((length,), -1, dtype=torch.int32, device=DEVICE)
    stamp[list(taken)] = 5
    return triton_updates.Reader(stamp, due, torch.zeros(1, dtype=torch.int32, device=DEVICE), table)


def test_update_lists_what_reads_a_row_that_moved():
    """Two layers hear of it: one through a table, one by the row's own number; of which some are listed already."""
    count, epoch = 90, torch.tensor([5], dtype=torch.int32, device=DEVICE)
    x, weight, table = random(count, 6), random(27, 6, 16), random_table(count, count, 27)
    cache = triton_kernels.conv(x, table, weight)
    cache[::3] += 1.0
    rows = torch.randperm(count)[:70].to(DEVICE, torch.int32)
    rows[40:60] = -1  # a whole block of nothing among them
    readers = [reader(50, 60, random_table(count, 50, 8, fill=0.3), taken=(8, 11)), reader(count, 60, taken=(0, 6))]
    replaced = torch.zeros(1, dtype=torch.int32, device=DEVICE)
    moved = triton_updates.update(
        x, table, rows, weight, None, None, False, cache, 0.5, tiles=triton_kernels.Tiles(16, 16, 16, 4), readers=readers,
        epoch=epoch, replaced=replaced)
    gone = rows[moved].long()
    assert sorted(gone.tolist()) == sorted(r for r in rows.tolist() if r >= 0 and r % 3 == 0)
    assert int(replaced) == len(gone)
    reached = set(readers[0].table[gone].flatten().tolist()) - {-1}
    assert reached & {8, 11} and listed(readers[0]) == sorted(reached - {8, 11})
    assert listed(readers[1]) == sorted(set(gone.tolist()) - {0, 6})
    for told, expected in zip(readers, (reached, {*gone.tolist(), 0, 6}), strict=True):
        assert set(torch.nonzero(told.stamp == 5)[:, 0].tolist()) == expected | ({8, 11} if told is readers[0] else set())


@pytest.mark.parametrize("taps", [1, 8, 27])
@pytest.mark.parametrize("some", [False, True])
def test_announce_lists_what_reads_some_rows(taps, some):
    """A list that is too short says by how much."""
    count, epoch = 2000, torch.tensor([5], dtype=torch.int32, device=DEVICE)
    rows = torch.randperm(count)[:1500].to(DEVICE, torch.int32)
    rows[100:200] = -1
    moved = (torch.rand(1500) < 0.3).to(DEVICE) if some else None
    named = rows[(rows >= 0) & moved] if some else rows[rows >= 0]
    table = None if taps == 1 else random_table(count, count, taps, fill=0.05)
    want = set(named.tolist()) if table is None else set(table[named.long()].flatten().tolist()) - {-1}
    for length in (count, 7):
        told = reader(count, length, table)
        triton_updates.announce(rows, moved, told, epoch)
        assert int(told.number) == len(want) and set(listed(told)) <= want


@pytest.mark.parametrize(("width", "k"), [(3, 8), (16, 5), (33, 1)])
def test_attend_is_the_attention_of_the_model(width, k):
    """Over the k nearest of the neighbours there are; voxels without any among them."""
    count, layer = 60, AttentionKnn(width).to(DEVICE)
    x, neighbors, order = random(count, width), random_table(count, count, 27), torch.from_numpy(nearest_columns()).to(DEVICE)
    neighbors[5] = -1
    rows = torch.randperm(count)[:40].to(DEVICE, torch.int32)
    rows[3], rows[4] = -1, 5
    rows[16:32] = -1
    asked = rows[rows >= 0].long()
    around = neighbors[asked][:, order.long()]
    nearest = around.masked_fill((around >= 0).cumsum(1) > k, -1)
    with torch.no_grad():
        want = attend(x, x[asked], nearest, *layer.parts())
    out, fresh = torch.zeros(count, width, device=DEVICE), torch.zeros(count, dtype=torch.bool, device=DEVICE)
    kept = asked[::3]
    out[kept] = want[::3] + 0.01  # not far enough to be replaced
    told, replaced = reader(count, count), torch.zeros(1, dtype=torch.int32, device=DEVICE)
    epoch, limit = torch.tensor([5], dtype=torch.int32, device=DEVICE), torch.tensor([0.02], device=DEVICE)
    fresh[kept[0]] = True
    moved = triton_updates.attend(
        x, neighbors, order, k, rows, [part.detach() for part in layer.parts()], out, limit, fresh, [told], epoch, replaced)
    stays = set(kept[1:].tolist())
    assert {int(r) for r in rows[moved]} == set(asked.tolist()) - stays == set(listed(told))
    assert int(replaced) == len(asked) - len(stays)
    gone = torch.tensor([int(r) not in stays for r in asked], device=DEVICE)
    assert_close(out[asked[gone]], want[gone].double(), torch.float32)


def test_seed_begins_all_lists():
    """Three layers, two of which begin with the same rows."""
    change = torch.full((3000,), -1, dtype=torch.int32)
    change[:1500], change[2000:2005] = torch.randperm(1600)[:1500], torch.arange(5)
    plan = torch.tensor([[0, 2000, 0, 0], [2000, 1000, 2000, 2000], [0, 2000, 3000, 4000]])
    due, stamp = torch.full((5000,), -1, dtype=torch.int32, device=DEVICE), torch.zeros(6000, dtype=torch.int32, device=DEVICE)
    counts = torch.zeros(3, triton_updates.APART, dtype=torch.int32, device=DEVICE)
    triton_updates.seed(plan.to(DEVICE), 2000, change.to(DEVICE), due, stamp, counts, torch.tensor([9], dtype=torch.int32, device=DEVICE))
    assert counts[:, 0].tolist() == [1500, 5, 1500] and not counts[:, 1:].any()
    for begin, length, stamps, rows in ((0, 2000, 0, change[:2000]), (2000, 1000, 2000, change[2000:]), (3000, 2000, 4000, change[:2000])):
        assert torch.equal(due[begin : begin + length].cpu(), rows)
        marked = torch.nonzero(stamp[stamps : stamps + 2000].cpu() == 9)[:, 0].tolist()
        assert marked == sorted(rows[rows >= 0].tolist())


@pytest.mark.parametrize("dtype", triton_kernels.DTYPES)
@pytest.mark.parametrize(("rows", "taps", "cin", "cout"), [(1, 27, 6, 20), (300, 8, 6, 20), (40, 2, 70, 66)])
def test_weight_gradient(dtype, rows, taps, cin, cout):
    x, grad, table = random(50, cin, dtype=dtype), random(rows, cout, dtype=dtype), random_table(rows, 50, taps)
    got = triton_kernels.weight_grad(x, table, grad)
    padded = torch.cat([x, x.new_zeros(1, cin)]).double()
    assert got.dtype == torch.float32
    assert_close(got, torch.einsum("nki,no->kio", padded[table.long()], grad.double()), torch.float32)
    assert torch.equal(got, triton_kernels.weight_grad(x, table, grad))


def small_levels():
    coords = np.argwhere(np.random.default_rng(0).random((6, 6, 6)) < 0.15).astype(np.int32)
    return len(coords), build_tables(coords, 2).to(DEVICE).levels


def gradients(path, x, table, weight, reverse, upstream):
    leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
    with only_path(path):
        out = sparse_conv(leaves[0], table, leaves[1], reverse)
        out.backward(upstream.to(out.dtype))
    return [out.detach(), leaves[0].grad, leaves[1].grad]


@pytest.mark.parametrize("layer", ["neighbors", "children", "up"])
@pytest.mark.parametrize("half", [False, True])
def test_autograd_is_that_of_the_torch_path(layer, half):
    count, (fine, coarse) = small_levels()
    inputs, table, reverse = {
        "neighbors": (count, fine.neighbors, None),
        "children": (count, coarse.children, fine.up),
        "up": (len(coarse.children), fine.up, coarse.children),
    }[layer]
    x, weight, upstream = random(inputs, 6), random(table.shape[1], 6, 20), random(len(table), 20)
    kind = torch.bfloat16 if DEVICE == "cpu" else torch.float16
    with torch.autocast(DEVICE, dtype=kind, enabled=half):
        ours, theirs = (gradients(path, x, table, weight, reverse, upstream) for path in ("triton", "torch"))
    assert ours[0].dtype == (kind if half else torch.float32)
    assert ours[2].dtype == torch.float32
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b.double(), kind if half else torch.float32)


def test_under_autocast_the_weight_gradient_keeps_its_precision():
    """A sum of 301 times 1/4096: bfloat16 has no 301."""
    weight = torch.zeros(1, 1, 1, requires_grad=True, device=DEVICE)
    table = torch.zeros(301, 1, dtype=torch.int32, device=DEVICE)
    reverse = torch.full((1, 1), -1, dtype=torch.int32, device=DEVICE)
    with torch.autocast(DEVICE, dtype=torch.bfloat16), only_path("triton"):
        out = sparse_conv(torch.ones(1, 1, device=DEVICE), table, weight, reverse)
        out.backward(torch.full_like(out, 1 / 4096))
    assert out.dtype == torch.bfloat16
    assert weight.grad.item() == 301 / 4096


def test_whole_network_is_that_of_the_torch_path():
    config = ModelConfig(channels=(8, 12), blocks=1)
    net = InstanceNet(config).eval()
    coords = np.argwhere(np.random.default_rng(1).random((6, 6, 6)) < 0.15).astype(np.int32)
    tables, program = build_tables(coords, 2).to(DEVICE), compile_network(net).to(DEVICE)
    features = random(len(coords), program.layers[0].weight.shape[1])
    outputs = {}
    for path in ("triton", "torch"):
        with only_path(path):
            outputs[path] = program.run(features, tables)
    for name, want in outputs["torch"].items():
        assert_close(outputs["triton"][name], want.double(), torch.float32)
