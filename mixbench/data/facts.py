"""What holds of each data set; without any import that is slow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What holds of a data set.

    Attributes:
        label: how tables print it.
        classes, channels, image_size, train_images, test_images: counts; `image_size` is the side in pixels.
        mean, std: what its images are normalised by, of each channel, pixels in [0, 1].
        put: what to put where if it is missing.
        layout: the files and folders that then lie below the data folder, a line each; none where there are none.
        interpolation: how a random resized crop is brought to its size: ``bicubic`` or ``bilinear``.
        official: fingerprints of the official content.
        files: where its files lie below the data folder, the test images' last, and their official MD5 sums; none where
            each image is a file of its own, and for digits, which come with scikit-learn.
    """

    label: str
    classes: int
    channels: int
    image_size: int
    train_images: int
    test_images: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    put: str
    layout: tuple[str, ...] = ()
    interpolation: str = "bicubic"
    official: frozenset[str] = frozenset()
    files: Mapping[str, str] = field(default_factory=dict)


_PUT = "unpack the official 'python version' from https://www.cs.toronto.edu/~kriz/cifar.html into the data folder"

DATASETS: Mapping[str, Facts] = {
    "digits": Facts(
        label="Digits",
        classes=10,
        channels=1,
        image_size=8,
        train_images=1000,
        test_images=797,
        # Counted over the 1,000 training images.
        mean=(0.3070,),
        std=(0.3762,),
        put="install scikit-learn, which brings them",
        official=frozenset({"d8de69a75fdfa5cb"}),
    ),
    "cifar10": Facts(
        label="CIFAR-10",
        classes=10,
        channels=3,
        image_size=32,
        train_images=50_000,
        test_images=10_000,
        # Over the 50,000 official training images; the figures in common use (std of all pixels, not mean of stds).
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        put=_PUT,
        layout=("cifar-10-batches-py/data_batch_1, ..., data_batch_5, test_batch",),
        # The sums that torchvision.datasets.CIFAR10 and CIFAR100 check.
        files={
            "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
            "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
            "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
        },
    ),
    "cifar100": Facts(
        label="CIFAR-100",
        classes=100,
        channels=3,
        image_size=32,
        train_images=50_000,
        test_images=10_000,
        # As for CIFAR-10.
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        put=_PUT,
        layout=("cifar-100-python/train, test",),
        official=frozenset({"e87be4d9dfcf707a"}),
        files={
            "cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d",
            "cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        },
    ),
    "tiny_imagenet": Facts(
        label="Tiny-ImageNet",
        classes=200,
        channels=3,
        image_size=64,
        train_images=100_000,
        test_images=10_000,
        # Not counted, but Kim et al.'s (2020), whose figures are quoted: snu-mllab/PuzzleMix, load_data.py, 127.5/255.
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        put="unpack the official http://cs231n.stanford.edu/tiny-imagenet-200.zip into the data folder",
        layout=(
            "tiny-imagenet-200/wnids.txt",
            "tiny-imagenet-200/train/WNID/images/*.JPEG",
            "tiny-imagenet-200/val/val_annotations.txt",
            "tiny-imagenet-200/val/images/*.JPEG",
        ),
        interpolation="bicubic",  # as the published protocol that crops it so (OpenMixup's Tiny-ImageNet settings)
        # Of a sample, see mixbench.data.tiny_imagenet.
        official=frozenset({"4d72b6e0ea56a709"}),
    ),
    "imagenet": Facts(
        label="ImageNet",
        classes=1000,
        channels=3,
        image_size=224,
        train_images=1_281_167,
        test_images=50_000,
        # Not counted, but those in common use, torchvision's.
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        put="as torchvision.datasets.ImageNet unpacks them, put ILSVRC2012's class folders (https://image-net.org) "
        "into imagenet/train and imagenet/val below the data folder",
        layout=("imagenet/train/WNID/*.JPEG", "imagenet/val/WNID/*.JPEG"),
        interpolation="bilinear",  # torchvision's default, with which its ImageNet networks are trained
        # Of the names of its classes, see mixbench.data.imagenet.
        official=frozenset({"385e0240499426c0"}),
    ),
}
