"""Captured gradients against plain autograd on unpadded rows, hand-written attention and repeated heads."""

import pytest
import torch
import torch.nn.functional as F

from spd_lightning.subspace.capture import Batch, capture_gradients, collate, form_batches
from spd_lightning.subspace.correctness import EncodedExample
from spd_lightning.subspace.sites import kv_sites
from tests.conftest import tiny_model
from tests.unit.subspace.forward_by_hand import forward


def encoded(ids, positions, name="x"):
    return EncodedExample(name, tuple(ids), tuple(t in positions for t in range(len(ids))))


def plain(model, example, layers):
    """The definition: whole graph, all logits, one unpadded text; rows of all its tokens."""
    captured, handles = {}, []
    for i in layers:
        for side in "kv":
            module = getattr(model.model.layers[i].self_attn, f"{side}_proj")

            def hook(module, args, output, key=(i, side)):
                captured[key] = output
                output.retain_grad()

            handles.append(module.register_forward_hook(hook))
    model.requires_grad_(True)
    ids = torch.tensor([example.input_ids])
    log_p = model(input_ids=ids).logits[0].log_softmax(-1)
    positions = [t for t, in_s in enumerate(example.correctness_mask) if in_s]
    (-sum(log_p[t - 1, ids[0, t]] for t in positions) / len(positions)).backward()
    model.zero_grad()
    model.requires_grad_(False)
    for handle in handles:
        handle.remove()
    return {key: value.grad[0] for key, value in captured.items()}


EXAMPLES = [
    encoded(range(10, 22), {11}, "a"),
    encoded(range(40, 47), {3, 4}, "b"),
    encoded(range(60, 75), {2, 9}, "c"),
]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("layers", [[0], [1], [0, 1]])
def test_padded_batch_equals_one_text_at_a_time(kind, layers):
    model = tiny_model(kind).double().requires_grad_(False)
    batch = collate(EXAMPLES, pad_token_id=256)
    gradients = capture_gradients(model, batch, kv_sites(model, layers))
    width = 16  # the longest reach, 11, in whole steps of 8
    for key, rows in gradients.items():
        expected = [plain(model, e, layers)[key] for e in EXAMPLES]
        assert torch.allclose(rows, torch.cat([g[:width] for g in expected]), rtol=1e-5, atol=1e-12)
        # what is left out is zero by definition
        assert all(not g[e.reach :].any() for g, e in zip(expected, EXAMPLES, strict=True))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_gradients_equal_those_of_a_forward_written_by_hand(kind):
    """Of K and V as they leave their projections: all heads side by side, before key norm and rotary positions."""
    model = tiny_model(kind, num_hidden_layers=3).double().requires_grad_(False)
    for name, weight in model.named_parameters():
        weight.data = torch.randn_like(weight) * 0.3 + ("norm" in name)
    gradients = capture_gradients(model, collate(EXAMPLES), kv_sites(model, [1, 2]))
    expected = {key: [] for key in gradients}
    for example in EXAMPLES:
        taken = dict.fromkeys(expected)
        log_p = forward(model, list(example.input_ids), taken=taken).log_softmax(-1)
        s = [t for t, inside in enumerate(example.correctness_mask) if inside]
        loss = -sum(log_p[t - 1, example.input_ids[t]] for t in s) / len(s)
        for key, gradient in zip(taken, torch.autograd.grad(loss, list(taken.values())), strict=True):
            expected[key].append(gradient[:16])  # rows that are run, see above
    for key, rows in gradients.items():
        wanted = torch.cat(expected[key])
        assert (rows - wanted).norm() < 1e-4 * wanted.norm()  # transformers turns and norms in float32


def test_no_parameter_gets_a_gradient_and_no_hook_stays():
    model = tiny_model().requires_grad_(False)
    capture_gradients(model, collate(EXAMPLES), kv_sites(model))
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_hooks_are_removed_when_the_forward_fails():
    model = tiny_model().requires_grad_(False)
    bad = collate([encoded([5, 9999, 7], {2})])
    with pytest.raises(IndexError):
        capture_gradients(model, bad, kv_sites(model))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.is_grad_enabled()


def test_layers_below_the_lowest_target_have_no_graph_and_logits_are_only_at_s():
    model = tiny_model().requires_grad_(False)
    seen = {}
    handles = [
        model.model.layers[0].register_forward_hook(lambda m, a, out: seen.update(below=out.requires_grad)),
        model.model.layers[1].register_forward_hook(lambda m, a, out: seen.update(top=out.requires_grad)),
        model.lm_head.register_forward_hook(lambda m, a, out: seen.update(logits=tuple(out.shape))),
    ]
    capture_gradients(model, collate(EXAMPLES), kv_sites(model, [1]))
    for handle in handles:
        handle.remove()
    assert seen == {"below": False, "top": True, "logits": (1, 5, 258)}


def test_grouped_heads_equal_repeated_heads():
    """The gradient of a shared K/V head is the sum over the heads of a model that repeats it."""
    grouped = tiny_model("llama").double().requires_grad_(False)
    full = tiny_model("llama", num_key_value_heads=4).double().requires_grad_(False)
    state = grouped.state_dict()
    for name, value in state.items():
        if "k_proj" in name or "v_proj" in name:
            state[name] = value.view(2, 8, 32).repeat_interleave(2, dim=0).reshape(32, 32)
    full.load_state_dict(state)
    batch = collate(EXAMPLES)
    one, many = capture_gradients(grouped, batch, kv_sites(grouped)), capture_gradients(full, batch, kv_sites(full))
    for key, rows in one.items():
        repeated = many[key].view(-1, 2, 2, 8).sum(dim=2).reshape(-1, 16)
        assert torch.allclose(rows, repeated, rtol=1e-5, atol=1e-12)


def test_last_layer_values_against_hand_written_attention():
    """dL/dV = A^T dL/dO for one layer, with attention weights and the rest of the network written out."""
    model = tiny_model("llama", num_hidden_layers=1, num_key_value_heads=4).double().requires_grad_(False)
    example = EXAMPLES[1]
    ids = torch.tensor([example.input_ids])
    block = model.model.layers[0]
    hidden = model.model.embed_tokens(ids)
    normed = block.input_layernorm(hidden)
    n = ids.shape[1]
    cos, sin = model.model.rotary_emb(hidden, torch.arange(n)[None])

    def heads(x):
        return x.view(n, 4, 8).transpose(0, 1)

    def rotate(x):
        return x * cos[0] + torch.cat([-x[..., 4:], x[..., :4]], -1) * sin[0]

    attention = block.self_attn
    q, k, v = (heads(proj(normed)[0]) for proj in (attention.q_proj, attention.k_proj, attention.v_proj))
    scores = rotate(q) @ rotate(k).transpose(1, 2) / 8**0.5
    weights = scores.masked_fill(torch.ones(n, n).triu(1).bool(), -torch.inf).softmax(-1)
    mixed = (weights @ v).requires_grad_()
    x = hidden + attention.o_proj(mixed.transpose(0, 1).reshape(1, n, 32))
    x = x + block.mlp(block.post_attention_layernorm(x))
    log_p = model.lm_head(model.model.norm(x))[0].log_softmax(-1)
    loss = -(log_p[2, ids[0, 3]] + log_p[3, ids[0, 4]]) / 2
    with torch.enable_grad():
        (d_mixed,) = torch.autograd.grad(loss, mixed)
    expected = (weights.transpose(1, 2) @ d_mixed).transpose(0, 1).reshape(n, 32)
    rows = capture_gradients(model, collate([example]), kv_sites(model))[0, "v"]
    assert torch.allclose(rows, expected, rtol=1e-4, atol=1e-10)


def test_each_example_weighs_the_same_whatever_the_size_of_its_s():
    model = tiny_model().double().requires_grad_(False)
    sites = kv_sites(model, [1])
    twice = encoded(range(10, 22), {11}, "a")
    batch = collate([twice, encoded(range(10, 22), {5, 11}, "b")])
    rows = capture_gradients(model, batch, sites)[1, "v"].view(2, 12, -1)
    at_5 = capture_gradients(model, collate([encoded(range(10, 22), {5})]), sites)[1, "v"]
    mean = rows[0].clone()
    mean[:8] += at_5
    assert torch.allclose(rows[1], mean / 2, rtol=1e-6, atol=1e-12)


def test_batches_are_canonical_and_bounded():
    examples = [encoded(range(n), {n - 1}, f"id{n % 7}-{n}") for n in (9, 3, 30, 12, 4, 5, 12, 8)]
    batches = form_batches(examples, batch_tokens=24)
    assert batches == form_batches(examples[::-1], batch_tokens=24)
    flat = [e for batch in batches for e in batch]
    assert flat == sorted(examples, key=lambda e: (e.reach, e.id))
    assert all(len(b) == 1 or b[-1].reach * len(b) <= 24 for b in batches)
    assert [len(b) for b in batches] == [4, 2, 2, 1][: len(batches)] or sum(map(len, batches)) == 8
    assert len(batches) < len(examples)


def test_rows_are_run_in_whole_steps_so_that_few_shapes_occur():
    model, widths = tiny_model().requires_grad_(False), set()
    handle = model.model.layers[0].register_forward_hook(lambda module, args, out: widths.add(out.shape[1]))
    for n in range(3, 26):
        capture_gradients(model, collate([encoded(range(n), {n - 1})]), kv_sites(model, [1]))
    handle.remove()
    assert widths == {8, 16, 24}


def test_collate_pads_on_the_right():
    batch = collate(EXAMPLES[:2], pad_token_id=7)
    assert batch.input_ids[1].tolist() == [*range(40, 47), *[7] * 10]
    assert batch.attention_mask.sum(1).tolist() == [12, 7] and batch.num_tokens == 19
    assert collate([]).input_ids.shape == (0, 0) and isinstance(batch, Batch)


def test_final_soft_cap_stays_in_force():
    """The loss is that of the model's own logits: F.cross_entropy on them gives the same gradient."""
    import transformers

    torch.manual_seed(0)
    settings = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.Gemma2Config(
        **settings, num_key_value_heads=2, head_dim=8, vocab_size=80, final_logit_softcapping=0.3, initializer_range=0.3
    )
    model = transformers.AutoModelForCausalLM.from_config(config).double().eval().requires_grad_(False)
    sites = kv_sites(model, [1])
    example = encoded(range(10, 22), {11})
    rows = capture_gradients(model, collate([example]), sites)[1, "v"]
    leaf = {}

    def hook(module, args, output):
        leaf["v"] = output.detach().requires_grad_()
        return leaf["v"]

    handle = model.model.layers[1].self_attn.v_proj.register_forward_hook(hook)
    logits = model(input_ids=torch.tensor([example.input_ids])).logits
    handle.remove()
    assert logits.abs().max() <= 0.3
    loss = F.cross_entropy(logits[0, 10:11], torch.tensor([example.input_ids[11]]))
    (expected,) = torch.autograd.grad(loss, leaf["v"])
    assert torch.allclose(rows, expected[0], rtol=1e-4, atol=1e-9)
