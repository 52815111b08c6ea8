"""SubspaceExtractionModule under a Trainer: one process or two, cached moments, early refusals, the plain reading."""

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from spd_lightning.errors import UserError
from spd_lightning.subspace.compare import principal_angles
from spd_lightning.subspace.correctness import CUT_OFF
from spd_lightning.subspace.module import SubspaceExtractionModule
from spd_lightning.subspace.moments import Moments
from spd_lightning.subspace.projection import fold_projection
from tests.conftest import tiny_model
from tests.settings import PYTHONPATH

ROOT = Path(__file__).parents[3]


@pytest.fixture
def task_file(tmp_path):
    """Seven examples, so that a sampler that pads to an even number would show."""
    rows = [
        {"id": f"e{i}", "prompt": f"Q: {'x' * i} {i}+{i}=\nA:", "target": f" {2 * i}", "split": "train"}
        for i in range(7)
    ]
    path = tmp_path / "task.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def trainer():
    return Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        barebones=False,
    )


def module_of(tiny_model_dir, task_file, **options):
    options = {"batch_tokens": 40, **options}
    return SubspaceExtractionModule(model_name_or_path=tiny_model_dir, task="custom", task_file=task_file, **options)


def run(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer().predict(module, return_predictions=False)
        return module


def test_moments_equal_those_of_plain_autograd(tiny_model_dir, task_file):
    from tests.unit.subspace.test_capture import plain

    module = run(module_of(tiny_model_dir, task_file, layers="all"))
    model = tiny_model()
    encoded, statistics = module.pairs["custom"].encoded
    stacked = {key: [] for key in module.target_sites}
    for example in encoded:
        for key, rows in plain(model, example, [0, 1]).items():
            stacked[key].append(rows.double())
    assert statistics.num_examples == 7
    for key, site in module.moments.sites.items():
        rows = torch.cat(stacked[key])
        assert site.count == len(rows) == statistics.num_tokens
        expected = rows.T @ rows
        assert (site.second_moment - expected).norm() < 1e-5 * expected.norm()
        assert (site.sum - rows.sum(0)).norm() < 1e-4 * rows.sum(0).norm() + 1e-7


def test_subspace_metadata_and_use(tiny_model_dir, task_file):
    subspace = run(module_of(tiny_model_dir, task_file)).subspace
    assert subspace.layers == [1] and subspace.sides == ["k", "v"]
    contract = (
        "model fingerprint task layers sides rank energy num_examples num_skipped num_tokens loss center basis "
        "strength dtype version"
    )
    assert set(contract.split()) <= set(subspace.metadata)
    assert subspace.metadata["model"] == "tiny-llama" and subspace.metadata["dtype"] == "float32"
    assert os.sep not in json.dumps(subspace.metadata)
    with fold_projection(tiny_model(), subspace):
        pass


def test_metadata_says_what_was_skipped_and_why(tiny_model_dir, task_file):
    module = module_of(tiny_model_dir, task_file, max_length=14)  # example i needs 13 + i tokens for its digit
    metadata = run(module).subspace.metadata
    assert (metadata["num_examples"], metadata["num_skipped"], metadata["num_cut"]) == (3, 4, 5)
    assert metadata["skipped"] == {CUT_OFF: 4}


def test_rank_centring_and_basis_use_cached_moments_without_a_model(tiny_model_dir, task_file, tmp_path):
    first = run(module_of(tiny_model_dir, task_file))
    path = first.moments.save(tmp_path / "moments.safetensors")
    second = module_of(tiny_model_dir, task_file, rank=3, center=True, basis="complement")
    assert second.moments_keys() == first.moments_keys() and second.subspace_key() != first.subspace_key()
    with pytest.raises(UserError, match="no moments yet"):
        _ = second.subspace
    second.moments = Moments.load(path)
    assert second.subspace.basis(1, "k").shape == (16, 3) and second.model is None
    assert second.subspace.metadata["num_tokens"] == first.pairs["custom"].encoded[1].num_tokens
    again = module_of(tiny_model_dir, task_file)
    again.moments = Moments.load(path)
    one, two = tmp_path / "one", tmp_path / "two"
    assert first.subspace.save(one).read_bytes() == again.subspace.save(two).read_bytes()


def test_keys_hold_what_matters_and_nothing_else(tiny_model_dir, task_file, tmp_path):
    base = module_of(tiny_model_dir, task_file)
    json.dumps(base.subspace_key())
    for same in ({"rank": 3}, {"center": True}, {"basis": "random"}, {"strength": 0.5}, {"seed": 1}):
        assert module_of(tiny_model_dir, task_file, **same).moments_keys() == base.moments_keys()
    others = ({"layers": [0]}, {"sides": "k"}, {"loss": "full"}, {"max_length": 9}, {"span_rule": "contained"})
    for other in (*others, {"dtype": "bfloat16"}, {"num_examples": 3}):
        assert module_of(tiny_model_dir, task_file, **other).moments_keys() != base.moments_keys()
    assert module_of(tiny_model_dir, task_file, seed=1).subspace_key() == base.subspace_key()
    one, two = (module_of(tiny_model_dir, task_file, basis="random", seed=s).subspace_key() for s in (1, 2))
    assert one != two
    changed = tmp_path / "changed.jsonl"
    changed.write_text(Path(task_file).read_text().replace("12", "13"))
    assert module_of(tiny_model_dir, str(changed)).moments_keys() != base.moments_keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": [5]}, "names layer 5, but the model has 2 layers"),
        ({"layers": "last"}, "layers='last' is not known"),
        ({"rank": 17}, r"rank=17 exceeds kv_dim=16 of layer 1 \(num_key_value_heads=2 x head_dim=8\).*at most 16"),
        ({"rank": "some"}, "rank='some' is not known"),
        ({"sides": "q"}, "Unknown subspace.sides 'q'"),
        ({"strength": 2.0}, "strength=2.0 is not between"),
        ({"num_examples": 0}, "num_examples=0 is not positive"),
        ({"batch_tokens": 0, "strength": -1.0}, r"batch_tokens=0 is not positive(.|\n)*strength=-1.0"),
        ({"span_rule": "inside"}, "Unknown subspace.span_rule 'inside'"),
        ({"loss": "all"}, "Unknown subspace.loss 'all'"),
        ({"basis": "best"}, "Unknown subspace.basis 'best'"),
        ({"dtype": "float16"}, "Unknown subspace.dtype 'float16'"),
        ({"max_length": 4}, "S is empty in all 7"),
    ],
)
def test_bad_options_are_refused_before_the_weights_are_loaded(
    tiny_model_dir, task_file, options, message, monkeypatch
):
    import spd_lightning.subspace.module as stage

    monkeypatch.setattr(stage, "load_model", lambda *args, **kwargs: pytest.fail("the weights were loaded"))
    with pytest.raises(UserError, match=message):
        run(module_of(tiny_model_dir, task_file, **options))


def test_weights_that_are_not_finite_are_named(tiny_model_dir, task_file):
    module = module_of(tiny_model_dir, task_file)
    module.model = tiny_model()
    with torch.no_grad():
        module.model.model.layers[0].mlp.up_proj.weight[0, 0] = torch.nan
    with pytest.raises(UserError, match=r"1 tensors, the first is model.layers.0.mlp.up_proj.weight"):
        run(module)


def test_a_model_already_certain_is_refused(tiny_model_dir, task_file):
    module = module_of(tiny_model_dir, task_file)
    module.model = tiny_model()
    with torch.no_grad():
        module.model.lm_head.weight.zero_()
    with pytest.raises(UserError, match="layer 1, side k, forward in float32 are all zero"):
        run(module)


def test_a_model_that_was_assigned_is_kept_and_frozen(tiny_model_dir, task_file):
    module = module_of(tiny_model_dir, task_file)
    module.model = tiny_model()
    kept = module.model
    run(module)
    assert module.model is kept and not any(p.requires_grad for p in kept.parameters())


def test_layers_are_packed_meanwhile_and_given_back_also_after_an_error(tiny_model_dir, task_file, monkeypatch):
    import spd_lightning.subspace.module as stage

    seen, original = [], stage.capture_gradients

    def spy(model, *args):
        seen.append("forward" in model.lm_head.__dict__)
        if len(seen) == 2:
            raise ZeroDivisionError
        return original(model, *args)

    monkeypatch.setattr(stage, "capture_gradients", spy)
    module = module_of(tiny_model_dir, task_file)
    with pytest.raises(ZeroDivisionError):
        run(module)
    assert seen == [torch.backends.mkldnn.is_available()] * 2
    assert not any("forward" in part.__dict__ for part in module.model.modules())
    assert not any("forward" in part.__dict__ for part in run(module).model.modules())


DDP = """
import sys, warnings
warnings.simplefilter("ignore")
from lightning.pytorch import Trainer
from spd_lightning.subspace.module import SubspaceExtractionModule

if __name__ == "__main__":
    model, task_file, out = sys.argv[1:]
    options = dict(logger=False, enable_progress_bar=False, enable_model_summary=False)
    for batch_tokens in (40, 1000):  # one after another, in the processes that the first one started
        module = SubspaceExtractionModule(model, "custom", task_file, batch_tokens=batch_tokens)
        trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", **options)
        trainer.predict(module, return_predictions=False)
        module.moments.save(f"{out}/{batch_tokens}-{trainer.world_size}-{trainer.global_rank}")
"""


@pytest.mark.ddp
def test_two_processes_equal_one_and_a_process_without_a_batch_takes_part(tiny_model_dir, task_file, tmp_path):
    script = tmp_path / "extract.py"
    script.write_text(DDP)
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), tiny_model_dir, task_file, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    one = run(module_of(tiny_model_dir, task_file)).moments
    # in batches of 1000 tokens there is one batch only, none for rank 1; another batch rounds otherwise
    for name, tolerance in (("40-2-0", 1e-10), ("40-2-1", 1e-10), ("1000-2-1", 1e-4)):
        many = Moments.load(tmp_path / name)
        assert many.metadata == one.metadata
        for key, site in one.sites.items():
            assert many.sites[key].count == site.count
            assert (many.sites[key].second_moment - site.second_moment).norm() <= tolerance * site.second_moment.norm()
            assert (many.sites[key].sum - site.sum).norm() <= tolerance * site.second_moment.norm().sqrt()


@pytest.mark.slow
@pytest.mark.parametrize(("task", "rule", "count"), [("gsm8k", "overlap", 12), ("mbpp", "contained", 4)])
def test_pretrained_models_agree_with_the_plain_reading_of_the_method(pretrained, data_dir, task, rule, count):
    from experiments.benchmarks.reference import gradient_rows, leading_directions

    options = {"task": task, "data_dir": data_dir, "num_examples": count, "span_rule": rule, "layers": "middle_last"}
    module = run(SubspaceExtractionModule(pretrained, **options))
    layers = sorted({layer for layer, _ in module.moments.sites})
    rows = gradient_rows(module.model, module.tokenizer, module.examples, layers, rule)
    for center in (False, True):
        module.center = center
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # few examples: the last layer's values are rank-deficient
            subspace = module.subspace
        for key, stacked in rows.items():
            assert module.moments.sites[key].count == len(stacked)
            exact, values = leading_directions(stacked.double(), subspace.basis(*key).shape[1], center)
            centred = stacked.double() - stacked.double().mean(0) if center else stacked.double()
            captured = (centred @ subspace.basis(*key).double()).square().sum()
            best = values[: exact.shape[1]].square().sum()
            assert abs(float(captured / best) - 1) < 1e-6, key
            numerical = int((values > 1e-4 * values[0]).sum())
            if numerical >= exact.shape[1]:
                cosines = principal_angles(subspace.basis(*key), exact).cos()
                assert cosines.square().mean() > 0.9999 and cosines.min() > 0.999, key


def test_basis_other_is_the_capability_of_another_task(tiny_model_dir, tmp_path):
    options = {"model_name_or_path": tiny_model_dir, "num_examples": 4, "rank": 3, "max_length": 400, "rows": "first"}
    other = SubspaceExtractionModule(task="arithmetic", basis="other", basis_task="letters", **options)
    letters = SubspaceExtractionModule(task="letters", **options)
    own = SubspaceExtractionModule(task="arithmetic", **options)
    assert other.moments_keys() == letters.moments_keys() != own.moments_keys()
    assert other.subspace_key() != letters.subspace_key()
    run(other)
    letters.found = {"letters": other.found["letters"]}
    for key in letters.subspace.bases:
        assert torch.equal(other.subspace.bases[key], letters.subspace.bases[key])
    assert (other.subspace.metadata["basis"], other.subspace.metadata["task"]) == ("other", "letters")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"basis": "other"}, "basis=other needs a basis_task other than arithmetic. Set --subspace.basis_task"),
        ({"basis": "other", "basis_task": "arithmetic"}, "basis=other needs a basis_task other than arithmetic"),
        ({"basis_task": "letters"}, "basis_task=letters is the task of basis other, and basis=capability"),
        ({"basis": "other", "basis_task": "leters"}, "leters"),
    ],
)
def test_the_task_of_basis_other_is_checked_before_anything_runs(tiny_model_dir, options, message):
    module = SubspaceExtractionModule(model_name_or_path=tiny_model_dir, task="arithmetic", **options)
    with pytest.raises(UserError, match=re.escape(message)):
        module.check_options()


def test_the_random_basis_is_another_one_for_each_seed(tiny_model_dir):
    options = {"model_name_or_path": tiny_model_dir, "task": "letters", "num_examples": 2, "basis": "random"}
    first, again, second = (SubspaceExtractionModule(seed=seed, **options) for seed in (1, 1, 2))
    run(first)
    again.found = second.found = first.found
    assert first.subspace_key() == again.subspace_key() != second.subspace_key()
    for key in first.subspace.bases:
        assert torch.equal(first.subspace.bases[key], again.subspace.bases[key])
        assert not torch.equal(first.subspace.bases[key], second.subspace.bases[key])


def test_a_text_longer_than_the_model_takes_is_refused(tiny_model_dir, task_file, tmp_path):
    """Positions that are learned would end in an IndexError; rows are run in steps of eight tokens."""
    folder = shutil.copytree(tiny_model_dir, tmp_path / "short")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 15}))
    wrong = r"text of e6 has \d\d tokens within max_length=256, but the model takes 15.*max_length\) to 8\."
    with pytest.raises(UserError, match=wrong):
        module_of(str(folder), task_file).setup("predict")
    module_of(str(folder), task_file, max_length=8, loss="full").setup("predict")
