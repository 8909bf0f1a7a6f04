"""What people do without this package, as their tutorials show it: the other arms of the benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision import transforms
from torchvision.datasets import ImageFolder

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREPROCESSING = transforms.Compose(
    [
        transforms.Resize(256),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
)


def tutorial_classifier(classes: int, weights: Path, *, trainable_from: int) -> nn.Module:
    """Torchvision's VGG16 with a head on global average pooling; its layers before one are frozen."""
    network = torchvision.models.vgg16(weights=None).features
    network.load_state_dict(torch.load(weights, weights_only=True))
    for position, layer in enumerate(network):
        layer.requires_grad_(position >= trainable_from)
    head = nn.Linear(512, classes)
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    return nn.Sequential(network, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), head)


def tutorial_training(
    data: Path, weights: Path, *, trainable_from: int, epochs: int, batch_size: int, lr: float
) -> float:
    """Trains as in PyTorch's transfer learning tutorial, in float32; returns the last validation loss."""
    torch.manual_seed(0)
    splits = {split: ImageFolder(data / split, PREPROCESSING) for split in ("train", "val")}
    loaders = {
        split: torch.utils.data.DataLoader(
            pictures, batch_size, shuffle=split == "train", drop_last=split == "train", num_workers=1
        )
        for split, pictures in splits.items()
    }
    model = tutorial_classifier(len(splits["train"].classes), weights, trainable_from=trainable_from)
    backbone = [parameter for parameter in model[0].parameters() if parameter.requires_grad]
    groups = [{"params": model[4].parameters(), "lr": lr}] + ([{"params": backbone, "lr": lr / 10}] if backbone else [])
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loaders["train"]))
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    loss = 0.0
    for _ in range(epochs):
        model.train()
        for images, labels in loaders["train"]:
            optimizer.zero_grad()
            criterion(model(images), labels).backward()
            optimizer.step()
            schedule.step()
        model.eval()
        total = 0.0
        with torch.no_grad():
            for images, labels in loaders["val"]:
                total += nn.functional.cross_entropy(model(images), labels, reduction="sum").item()
        loss = total / len(splits["val"])
    return loss


def tutorial_extraction(network: nn.Module, folder: Path, *, batch_size: int, out: Path) -> None:
    """Pooled features of all pictures of a folder, in float32, saved as one tensor."""
    pictures = ImageFolder(folder, PREPROCESSING)
    loader = torch.utils.data.DataLoader(pictures, batch_size, num_workers=1)
    with torch.inference_mode():
        rows = [network(images).mean(dim=(2, 3)) for images, _ in loader]
    torch.save(torch.cat(rows), out)


def img2vec_vgg16() -> Any:
    """The `Img2Vec` that `Img2Vec(model="vgg16")` is, but for its download: VGG16 with BatchNorm, random weights."""
    from img2vec_pytorch import Img2Vec, img_to_vec

    with mock.patch.object(img_to_vec, "vgg16_bn", return_value=torchvision.models.vgg16_bn(weights=None)):
        return Img2Vec(model="vgg16")


def decode_and_resize(path: Path) -> None:
    """All pixels of a photograph, then what the network sees of them."""
    with Image.open(path) as image:
        transforms.CenterCrop(224)(transforms.Resize(256)(image.convert("RGB")))
