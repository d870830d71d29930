"""ImageNet's folders, made up in small."""

import numpy as np
from PIL import Image

WNIDS = ("n01", "n02", "n03")


def draw(path, *, seed=0, size=(52, 40), mode="RGB"):
    """A picture of slopes in its own colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    turns = np.random.default_rng(seed).uniform(0, 7, 3)
    across, down = np.meshgrid(np.linspace(0, 5, size[0]), np.linspace(0, 5, size[1]))
    x = np.stack([127 * (1 + np.sin(across + turn) * np.cos(down - turn)) for turn in turns], axis=2)
    Image.fromarray(x.astype(np.uint8)).convert(mode).save(path, format="JPEG", quality=95)
    return path


def write_imagenet(root, *, train=4, val=2, wnids=WNIDS):
    """So many images of each class and part; test images are numbered across the classes, as the official ones are."""
    for number, wnid in enumerate(wnids):
        for image in range(train):
            size = (52 + image, 40 + 3 * number)
            draw(root / f"imagenet/train/{wnid}/{wnid}_{image}.JPEG", seed=100 * number + image, size=size)
        for image in range(val):
            place = image * len(wnids) + (len(wnids) - number)
            draw(root / f"imagenet/val/{wnid}/ILSVRC2012_val_{place:08d}.JPEG", seed=1000 + place)
    return root / "imagenet"
