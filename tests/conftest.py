"""Shared by all tests: devices, small models of three families, and sets to train them on."""

import os

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # bit-equality on a GPU

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.models.vgg import VGG, make_layers
from torchvision.models.vision_transformer import VisionTransformer

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


def small_resnet():
    """A ResNet: batch normalisation."""
    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)


def small_vgg():
    """A VGG: batch normalisation and dropout."""
    layers = make_layers([16, "M", 32, "M", 64, 64, "M"], batch_norm=True)
    model = VGG(layers, num_classes=10)
    model.avgpool = nn.AdaptiveAvgPool2d(1)
    model.classifier = nn.Sequential(
        nn.Linear(64, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 10)
    )
    return model


def small_vit():
    """A vision transformer: layer norm, dropout, attention, free parameters."""
    return VisionTransformer(32, 16, 2, 2, 16, 32, dropout=0.1, num_classes=10)


FAMILIES = {"resnet": small_resnet, "vgg": small_vgg, "vit": small_vit}


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
