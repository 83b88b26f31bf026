"""Shared by all tests: devices, small models of three families, and sets to train them on."""

import os

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # bit-equality on a GPU

import pytest
import torch
from families import FAMILIES

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])])
def device(request):
    """Every test that asks for a device runs on the CPU and, where there is one, on a GPU."""
    if request.param == "cuda":
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    return torch.device(request.param)


@pytest.fixture(params=FAMILIES)
def model(request, device):
    """One small model of each family, on the device, from a fixed seed."""
    torch.manual_seed(0)
    return FAMILIES[request.param]().to(device)


@pytest.fixture
def images(device):
    """32 images and labels as tensors."""
    torch.manual_seed(1)
    x, y = torch.randn(32, 3, 32, 32), torch.randint(0, 10, (32,))
    return x.to(device), y.to(device)
