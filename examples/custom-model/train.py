"""Make `digits.npz` and `classifier.pt` again: scikit-learn's digits, and a classifier trained on most of them."""

import numpy as np
import torch
from classifier import HERE, Classifier
from sklearn.datasets import load_digits

TRAINED = 1347  # of 1,797 images; the others are for the evaluation
CALIBRATION = 128
EPOCHS = 20
BATCH = 64


def main() -> None:
    """Store the data, train, and store the weights."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8).astype(np.uint8)
    np.savez_compressed(
        HERE / "digits.npz",
        calibration_images=images[:CALIBRATION],
        evaluation_images=images[TRAINED:],
        evaluation_labels=labels[TRAINED:].astype(np.uint8),
    )
    inputs = torch.from_numpy(images).unsqueeze(1) / 16
    model = train(inputs[:TRAINED], torch.from_numpy(labels[:TRAINED]))
    torch.save(model.state_dict(), HERE / "classifier.pt")
    right = model(inputs[TRAINED:]).argmax(1) == torch.from_numpy(labels[TRAINED:])
    print(f"accuracy on the evaluation images: {right.float().mean():.4f}")


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
