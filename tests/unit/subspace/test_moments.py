"""Moments against the stacked matrix, in any number of parts, and through files."""

import multiprocessing as mp
import socket

import pytest
import torch

from spd_lightning.errors import UserError
from spd_lightning.subspace.moments import Moments

KEY = (3, "k")


def moments_of(*parts, key=KEY):
    moments = Moments()
    for rows in parts:
        moments.update({key: rows})
    return moments


def test_moments_equal_those_of_the_stacked_matrix():
    rows = torch.randn(50, 6)
    site = moments_of(rows[:7], rows[7:8], rows[8:]).sites[KEY]
    exact = rows.double()
    assert torch.allclose(site.second_moment, exact.T @ exact, rtol=1e-13)
    assert site.second_moment.dtype == torch.float64 and site.count == 50
    centred = exact - exact.mean(0)
    assert torch.allclose(site.gram(center=True), centred.T @ centred, rtol=1e-10, atol=1e-10)
    assert site.gram(center=False) is site.second_moment


def test_rows_left_out_as_zero_still_count():
    rows = torch.randn(5, 4)
    moments = Moments()
    moments.update({KEY: rows}, count=8)
    padded = torch.cat([rows, torch.zeros(3, 4)])
    expected = moments_of(padded).sites[KEY]
    assert torch.allclose(moments.sites[KEY].gram(True), expected.gram(True))


def test_merge_is_the_sum():
    rows = torch.randn(20, 4)
    merged = moments_of(rows[:9])
    merged.merge(moments_of(rows[9:]))
    merged.merge(moments_of(rows, key=(4, "v")))
    assert torch.allclose(merged.sites[KEY].second_moment, moments_of(rows).sites[KEY].second_moment)
    assert merged.sites[KEY].count == 20 and (4, "v") in merged.sites


def test_file_repeats_bit_for_bit(tmp_path):
    moments = moments_of(torch.randn(20, 4))
    moments.update({(10, "v"): torch.randn(3, 2)})
    moments.metadata = {"task": "gsm8k", "model": "m"}
    first = moments.save(tmp_path / "a.safetensors").read_bytes()
    loaded = Moments.load(tmp_path / "a.safetensors")
    assert loaded.metadata == moments.metadata and list(loaded.sites) == [KEY, (10, "v")]
    assert torch.equal(loaded.sites[KEY].second_moment, moments.sites[KEY].second_moment)
    assert loaded.sites[KEY].count == 20
    assert loaded.save(tmp_path / "b.safetensors").read_bytes() == first


def test_files_that_are_not_moments_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"absent\.safetensors does not exist"):
        Moments.load(tmp_path / "absent.safetensors")
    (tmp_path / "text").write_text("x" * 100)
    with pytest.raises(UserError, match="text cannot be read as a safetensors file"):
        Moments.load(tmp_path / "text")
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="holds no second_moment"):
        Moments.load(tmp_path / "other.safetensors")


def test_gradients_without_direction_are_refused():
    with pytest.raises(UserError, match="layer 3, side k, forward in bfloat16 are all zero"):
        moments_of(torch.zeros(4, 4)).check("bfloat16")
    with pytest.raises(
        UserError, match=r"layer 3, side k, forward in bfloat16 are not finite. Set dtype=float32 .*\.$"
    ):
        moments_of(torch.full((4, 4), torch.nan)).check("bfloat16")
    moments_of(torch.randn(4, 4)).check("float32")


def _reduce(rank, port, queue):
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    moments = Moments()
    if rank == 0:  # rank 1 holds no row at all
        moments.update({KEY: torch.arange(12.0).view(3, 4)}, count=5)
    moments.ensure({KEY: 4, (5, "v"): 2})
    moments.all_reduce()
    queue.put((rank, moments.sites[KEY].second_moment.tolist(), moments.sites[KEY].count, len(moments.sites)))
    dist.destroy_process_group()


@pytest.mark.ddp
def test_all_reduce_gives_every_process_the_same():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = mp.get_context("spawn")
    queue = context.SimpleQueue()
    processes = [context.Process(target=_reduce, args=(rank, port, queue)) for rank in range(2)]
    for process in processes:
        process.start()
    results = sorted(queue.get() for _ in processes)
    for process in processes:
        process.join()
    rows = torch.arange(12.0, dtype=torch.float64).view(3, 4)
    for _, second_moment, count, sites in results:
        assert torch.equal(torch.tensor(second_moment, dtype=torch.float64), rows.T @ rows)
        assert (count, sites) == (5, 2)
