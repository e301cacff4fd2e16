"""Handwritten digits with Lightning; compare with ``diff plain.py sam.py``.

Run: python plain.py, then python sam.py. It takes seconds on a CPU.
"""

import lightning.pytorch as L
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import flatmin
from flatmin.integrations.lightning import SharpnessAware

L.seed_everything(0, verbose=False)
images, labels = load_digits(return_X_y=True)
parts = train_test_split(images.astype("float32") / 16, labels, random_state=0)
x_train, x_test, y_train, y_test = map(torch.from_numpy, parts)
loader = DataLoader(TensorDataset(x_train, y_train), batch_size=64, shuffle=True)


class Net(SharpnessAware, L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(64, 128),
            torch.nn.BatchNorm1d(128),
            torch.nn.ReLU(),
            torch.nn.Linear(128, 10),
        )

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = cross_entropy(self.net(x), y)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        optimizer = flatmin.SAM(optimizer, self, rho=0.05)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
        return [optimizer], [scheduler]


model = Net()
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
L.Trainer(accelerator="cpu", max_epochs=10, **quiet).fit(model, loader)

model.eval()
with torch.no_grad():
    wrong = model.net(x_test).argmax(1) != y_test
print(f"test error {100 * wrong.float().mean():.2f} %")
