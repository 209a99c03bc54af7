"""Make `data` and `classifier.pt` again: scikit-learn's digits as class folders, and a classifier trained on others."""

import shutil

import cv2
import numpy as np
import torch
from classifier import CLASS_NAMES, HERE, PREPROCESSING, Classifier
from sklearn.datasets import load_digits

TRAINED = 1347  # of 1,797 images; the others are for the evaluation
IMAGES_A_CLASS = {"train": 8, "val": 30}  # that are kept as files; training images are for the calibration
EPOCHS = 15
BATCH = 64


def main() -> None:
    """Store the data, train, and store the weights."""
    digits, labels = load_digits(return_X_y=True)
    images = np.repeat(np.uint8(digits.reshape(-1, 8, 8, 1) * 15), 3, axis=3)  # 0 (paper) to 240 (ink), as RGB
    shutil.rmtree(HERE / "data", ignore_errors=True)
    write("train", images[:TRAINED], labels[:TRAINED])
    write("val", images[TRAINED:], labels[TRAINED:])
    inputs = torch.cat([PREPROCESSING(image)[0][0] for image in images])
    model = train(inputs[:TRAINED], torch.from_numpy(labels[:TRAINED]))
    torch.save(model.state_dict(), HERE / "classifier.pt")
    right = model(inputs[TRAINED:]).argmax(1) == torch.from_numpy(labels[TRAINED:])
    print(f"top-1 on the {len(right)} images that were not trained on: {right.float().mean():.4f}")


def write(split: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Write the first images of each class as PNG files of 8x8 pixels."""
    for label, name in enumerate(CLASS_NAMES):
        folder = HERE / "data" / split / name
        folder.mkdir(parents=True)
        for index in np.flatnonzero(labels == label)[: IMAGES_A_CLASS[split]]:
            cv2.imwrite(str(folder / f"{index:04}.png"), images[index, :, :, 0])


def train(inputs: torch.Tensor, labels: torch.Tensor) -> Classifier:
    """Train a classifier, the same one every time."""
    torch.manual_seed(0)
    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(inputs)).split(BATCH):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs[batch]), labels[batch]).backward()
            optimizer.step()
        schedule.step()
    return model.eval()


if __name__ == "__main__":
    main()
