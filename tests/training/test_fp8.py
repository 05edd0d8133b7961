"""fp8 is refused where it cannot be; where torchao is installed, its rounding is emulated on the CPU."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

from cluster.errors import RequestError
from tests.training.test_model import batch, config, model_of
from training.config import PretrainConfig
from training.fp8 import convert_blocks, use_fp8

NO_TORCHAO = importlib.util.find_spec("torchao") is None


def test_a_cpu_is_refused() -> None:
    with pytest.raises(RequestError, match=r"capability 8\.9 or later and this is a CPU"):
        use_fp8(model_of(config()), torch.device("cpu"))


def test_widths_that_products_do_not_take_are_refused() -> None:
    with pytest.raises(RequestError, match=r"multiples of 16 and layers\.0\.mlp\.gate_proj is 64 x 100"):
        convert_blocks(model_of(config(intermediate_size=100)))


def test_fp32_beside_fp8_is_refused() -> None:
    with pytest.raises(ValueError, match="set precision to auto or bf16"):
        PretrainConfig(fp8=True, precision="fp32")


@pytest.mark.skipif(not NO_TORCHAO, reason="torchao is installed")
def test_a_missing_torchao_is_named() -> None:
    with pytest.raises(RequestError, match=r"pip install 'fournil\[fp8\]'"):
        convert_blocks(model_of(config()))


@pytest.mark.skipif(NO_TORCHAO, reason="torchao is not installed")
def test_emulated_fp8_keeps_names_and_nearly_the_loss() -> None:
    plain, model = model_of(config()), model_of(config())
    convert_blocks(model, emulate=True)
    assert [name for name, module in model.named_modules() if type(module) is nn.Linear] == []
    assert model.state_dict().keys() == plain.state_dict().keys()
    tokens, targets = batch()
    loss, wanted = model(tokens, targets), plain(tokens, targets)
    loss.backward()
    assert loss.item() == pytest.approx(wanted.item(), rel=0.01)
    assert loss.item() != wanted.item()
    assert all(parameter.grad is not None and bool(parameter.grad.isfinite().all()) for parameter in model.parameters())
