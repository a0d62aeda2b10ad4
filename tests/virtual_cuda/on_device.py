"""Tests that run on the virtual device; `test_virtual_device.py` runs this file in a separate process.

TORCH_ALLOW_TF32_CUBLAS_OVERRIDE is 1 in its environment, as in NVIDIA's containers, so everything is computed in TF32
unless sgloc prevents it.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from sgloc.cli import main
from sgloc.dist import process_group, resolve_placement
from sgloc.errors import ConfigError
from sgloc.evaluate.metrics.retrieval import retrieval_ranks
from sgloc.inference.pretrained import Pretrained
from sgloc.models.sketch_a_net.load import Classifier
from sgloc.models.sketch_a_net.network import SketchANet
from sgloc.models.sketchgloc.config import Config, DataConfig, EncoderConfig, ModelConfig, TrainConfig
from sgloc.models.sketchgloc.network import SketchGloc
from sgloc.tf32 import float32_products
from tests.batches import make_batch
from tests.checkpoints import make_model
from tests.drawings import make_drawings
from tests.evaluate.ranks import literal_ranks
from tests.train.launch import tiny_options
from tests.train.runs import open_run
from tests.virtual_cuda.runs import assert_as_on_a_cpu, training
from tests.virtual_cuda.tensors import VirtualTensor

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
STROKES = [[3, 1, 4], [2], [5, 2, 1]]


def switches() -> list[str]:
    """Return the precision settings of the operations that may use TF32."""
    return [torch._C._get_fp32_precision_getter("cuda", operation) for operation in ("matmul", "conv", "rnn")]


# The device itself


def test_the_environment_asks_for_tf32() -> None:
    assert switches() == ["tf32"] * 3
    ones = torch.full((4, 4), 1 + 2.0**-12, device="cuda")
    assert (ones @ ones).tolist() == [[4.0] * 4] * 4
    torch.testing.assert_close((ones.double() @ ones.double()).cpu(), ones.cpu().double() @ ones.cpu().double())


def test_tensors_say_that_they_are_on_cuda() -> None:
    tensor = torch.arange(3, device="cuda")
    assert isinstance(tensor, VirtualTensor)
    assert tensor.device == CUDA
    assert tensor.is_cuda
    assert tensor[tensor > 1].tolist() == [2]
    with pytest.raises(TypeError, match="can't convert cuda:0"):
        tensor.numpy()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(CUDA, CPU), (CPU, CUDA), (CUDA, torch.device("cuda", 1))],
    ids=["cuda and cpu", "cpu and cuda", "two GPUs"],
)
def test_operands_on_two_devices_are_refused(ours: torch.device, theirs: torch.device) -> None:
    with pytest.raises(RuntimeError, match="same device"):
        torch.ones(3, device=ours) + torch.ones(3, device=theirs)


def test_scalars_and_indices_may_be_on_the_cpu() -> None:
    tensor = torch.arange(3.0, device="cuda")
    assert (tensor * torch.tensor(2.0)).tolist() == [0, 2, 4]
    assert tensor[torch.tensor([2, 0])].tolist() == [2, 0]
    with pytest.raises(RuntimeError, match="same device"):
        torch.tensor([1.0, 2.0])[torch.tensor([0], device="cuda")]
    with pytest.raises(RuntimeError, match="same device"):
        tensor.dot(torch.tensor(2.0).expand(3))


def test_nccl_takes_no_tensor_in_host_memory() -> None:
    with process_group(resolve_placement({}), CUDA):
        assert dist.get_backend() == "nccl"
        dist.all_reduce(torch.ones(2, device="cuda"))
        with pytest.raises(RuntimeError, match="device type cpu"):
            dist.all_reduce(torch.ones(2))
        group = dist.new_group(backend="gloo")
        dist.all_reduce(torch.ones(2), group=group)
        dist.destroy_process_group(group)


def test_cudnn_goes_back_only_in_training_and_wants_one_chunk_of_weights() -> None:
    sizes = ((16, 3), (16, 4), (16,), (16,)) * 2
    weights = [torch.ones(size, device="cuda", requires_grad=True) for size in sizes]
    data, batch_sizes = torch.ones(3, 3, device="cuda"), torch.tensor([2, 1])
    state = (torch.zeros(2, 2, 4, device="cuda"),) * 2
    with pytest.warns(UserWarning, match="single contiguous chunk"):
        output, _, _ = torch.lstm(data, batch_sizes, state, weights, True, 1, 0.0, False, True)
    with pytest.raises(RuntimeError, match="cudnn RNN backward can only be called in training mode"):
        output.sum().backward()


# sgloc on the device


def gradients(model: SketchGloc, device: torch.device) -> list[Tensor]:
    """Return the loss and its gradients, on the CPU."""
    model = model.to(device)
    with float32_products(device):
        losses = model(make_batch(STROKES, dtype=torch.float32).to(device=device))
        torch.stack([term for term in losses if term.requires_grad]).sum().backward()
    found = [losses.total.detach(), *(weight.grad for weight in model.parameters() if weight.grad is not None)]
    return [tensor.cpu() for tensor in found]


@pytest.mark.parametrize(
    ("training", "keep"), [(False, 0.9), (False, 1.0), (True, 1.0)], ids=["evaluation", "evaluation, keep 1", "keep 1"]
)
def test_a_plain_lstm_has_gradients_where_it_drops_nothing(training: bool, keep: float) -> None:
    def model() -> SketchGloc:
        torch.manual_seed(0)
        return SketchGloc(ModelConfig(EncoderConfig("lstm", 4, keep), latent_size=3)).train(training)

    found, expected = gradients(model(), CUDA), gradients(model(), CPU)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_codes_and_drawings_are_those_of_a_cpu() -> None:
    sketches = [drawing.stroke3 for drawing in make_drawings(5, points=9)]
    codes, drawn = [], []
    for device in (CPU, CUDA):
        pretrained = Pretrained(make_model().to(device), 40.0, 12, "")
        codes.append(pretrained.encode(sketches))
        drawn.append(pretrained.generate(codes[0]))
    np.testing.assert_allclose(codes[1], codes[0], rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(*drawn, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    assert switches() == ["tf32"] * 3


def test_a_classifier_sees_what_it_sees_on_a_cpu() -> None:
    torch.manual_seed(0)
    model = SketchANet(3, width=2).eval()
    sketches = [[stroke + 1.0 for stroke in (np.eye(2) * 50, np.ones((3, 2)) * number)] for number in range(3)]
    seen: list[Tensor] = []
    model.output.register_forward_hook(lambda module, inputs, output: seen.append(output.detach().cpu()))
    for device in (CPU, CUDA):
        Classifier(model.to(device), 2, "", "").classify(sketches)
    torch.testing.assert_close(seen[1], seen[0], rtol=1e-5, atol=1e-6)


def test_retrieval_ranks_exactly_whatever_the_switches_say() -> None:
    # Codes so close that TF32 cannot distinguish them, nor can a naive float32 computation.
    gallery = torch.cat([torch.randn(20, 8) * 100, torch.full((20, 8), 30.0)])
    gallery[20:, 0] += torch.arange(20) * 2e-5
    own = torch.arange(40)
    queries = gallery.clone()
    queries[:, 0] += 0.9e-5
    found = retrieval_ranks(queries.to(CUDA), own.to(CUDA), gallery.to(CUDA))
    assert found.tolist() == literal_ranks(queries, own, gallery)


@pytest.mark.parametrize(
    ("override", "tf32", "is_refused"),
    [("1", False, True), ("0", True, True), ("0", False, False), ("1", True, False), ("", False, False)],
    ids=["forces TF32", "forbids TF32", "agrees on float32", "agrees on TF32", "empty"],
)
def test_nvidias_own_variable_must_not_say_the_opposite(
    override: str, tf32: bool, is_refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", override)
    with float32_products(CPU, tf32):
        pass
    if not is_refused:
        with float32_products(CUDA, tf32):
            assert switches() == ["tf32" if tf32 else "ieee"] * 3
        return
    refused = pytest.raises(ConfigError, match=f"NVIDIA_TF32_OVERRIDE is {override}.*; unset it")
    with refused, float32_products(CUDA, tf32):
        pass


@pytest.mark.parametrize("tf32", [False, True], ids=["float32", "TF32"])
def test_a_run_computes_in_tf32_only_if_it_is_asked_to(tf32: bool, tiny_shards: str, tmp_path: Path) -> None:
    options = TrainConfig(run=str(tmp_path), device="cuda", tf32=tf32, global_batch=4)
    config = Config(model=make_model().config, data=DataConfig(path=tiny_shards), train=options)
    with open_run(config, "never"):
        assert switches() == ["tf32" if tf32 else "ieee"] * 3
    assert switches() == ["tf32"] * 3


@pytest.mark.parametrize("kind", ["sketch_rnn"])
def test_a_run_is_that_of_a_cpu(kind: str, tiny_shards: str, tmp_path: Path) -> None:
    main(training(tmp_path / "cuda", tiny_shards, "cuda", 2, model__kind=kind))
    assert_as_on_a_cpu(tmp_path / "cuda", tiny_shards, tmp_path, 2, model__kind=kind)


def test_deepspeed_is_imported_on_the_device_of_the_process(
    tiny_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, seen = tmp_path / "deepspeed", tmp_path / "seen"
    package.mkdir()
    package.joinpath("__init__.py").write_text(
        f"import torch\nwith open({str(seen)!r}, 'a') as file:\n    file.write(str(torch.cuda.current_device()))\n"
        "raise ImportError('this one is for the test')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    place = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    words = ["--train.deepspeed", "configs/deepspeed/zero1.json", "--train.device", "cuda"]
    try:
        with pytest.raises(SystemExit):
            main(["train", *tiny_options(tmp_path / "run", tiny_shards), *words])
    finally:
        torch.cuda.set_device(0)
    # The import is tried twice, the first time before the process group exists.
    assert seen.read_text() == "11"
