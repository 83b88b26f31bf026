"""One small model of each family: what a rule must hold for."""

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.models.vgg import VGG, make_layers
from torchvision.models.vision_transformer import VisionTransformer


def small_resnet():
    """A ResNet: batch normalisation."""
    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)


def small_vgg():
    """A VGG: batch normalisation and dropout."""
    with torch.device("meta"):  # its own classifier has 119 million weights
        model = VGG(nn.Sequential(), num_classes=10, init_weights=False)
    model.features = make_layers([16, "M", 32, "M", 64, 64, "M"], batch_norm=True)
    model.avgpool = nn.AdaptiveAvgPool2d(1)
    model.classifier = nn.Sequential(
        nn.Linear(64, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 10)
    )
    return model


def small_vit():
    """A vision transformer: layer norm, dropout, attention, free parameters."""
    return VisionTransformer(32, 16, 2, 2, 16, 32, dropout=0.1, num_classes=10)


FAMILIES = {"resnet": small_resnet, "vgg": small_vgg, "vit": small_vit}
