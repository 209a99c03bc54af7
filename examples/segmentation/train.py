"""Make `data` and `segmenter.pt` again: drawn scenes, and a U-Net trained on others."""

import shutil

import cv2
import numpy as np
import torch
from scenes import draw
from segmenter import HERE, PREPROCESSING, UNet

from qgate_segmentation.label_map import NO_CLASS

SCENES = {"train": 32, "val": 64}
STEPS = 1200
BATCH = 16


def main() -> None:
    """Store the data, train, and store the weights."""
    shutil.rmtree(HERE / "data", ignore_errors=True)
    for seed, split in enumerate(SCENES):
        write(split, np.random.default_rng(seed))
    model = train(np.random.default_rng(len(SCENES)))
    torch.save(model.state_dict(), HERE / "segmenter.pt")


def write(split: str, rng: np.random.Generator) -> None:
    """Write scenes as JPEG files, and their masks as PNG files."""
    for kind in ("images", "masks"):
        (HERE / "data" / kind / split).mkdir(parents=True)
    for index in range(SCENES[split]):
        image, mask = draw(rng)
        path = str(HERE / "data" / "images" / split / f"{index:03}.jpg")
        cv2.imwrite(path, image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
        cv2.imwrite(str(HERE / "data" / "masks" / split / f"{index:03}.png"), mask)


def train(rng: np.random.Generator) -> UNet:
    """Train a U-Net on new scenes in every step, the same ones every time."""
    torch.manual_seed(0)
    model = UNet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, STEPS)
    for step in range(STEPS):
        scenes = [draw(rng) for _ in range(BATCH)]
        inputs = torch.cat([PREPROCESSING(image)[0][0] for image, _ in scenes])
        masks = torch.from_numpy(np.stack([mask for _, mask in scenes])).long()
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs), masks, ignore_index=NO_CLASS)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}: loss {loss:.4f}")
    return model.eval()


if __name__ == "__main__":
    main()
