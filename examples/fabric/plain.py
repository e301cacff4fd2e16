"""Handwritten digits with Lightning Fabric; compare with ``diff plain.py sam.py``.

Run: python plain.py, then python sam.py. It takes seconds on a CPU.
"""

import torch
from lightning_fabric import Fabric
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

fabric = Fabric(accelerator="cpu", devices=1)
fabric.launch()
torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
parts = train_test_split(images.astype("float32") / 16, labels, random_state=0)
x_train, x_test, y_train, y_test = map(torch.from_numpy, parts)
loader = DataLoader(TensorDataset(x_train, y_train), batch_size=64, shuffle=True)
loader = fabric.setup_dataloaders(loader)

model = torch.nn.Sequential(
    torch.nn.Linear(64, 128),
    torch.nn.BatchNorm1d(128),
    torch.nn.ReLU(),
    torch.nn.Linear(128, 10),
)
model = fabric.setup_module(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
optimizer = fabric.setup_optimizers(optimizer)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)

for _ in range(10):
    for x, y in loader:
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y)
        fabric.backward(loss)
        optimizer.step()
    scheduler.step()

model.eval()
with torch.no_grad():
    wrong = model(x_test).argmax(1) != y_test
print(f"test error {100 * wrong.float().mean():.2f} %")
