"""Handwritten digits with Ignite; compare with ``diff plain.py sam.py``.

Run: python plain.py, then python sam.py. It takes seconds on a CPU.
"""

import torch
from ignite.engine import Engine, Events
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import flatmin

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
parts = train_test_split(images.astype("float32") / 16, labels, random_state=0)
x_train, x_test, y_train, y_test = map(torch.from_numpy, parts)
loader = DataLoader(TensorDataset(x_train, y_train), batch_size=64, shuffle=True)

model = torch.nn.Sequential(
    torch.nn.Linear(64, 128),
    torch.nn.BatchNorm1d(128),
    torch.nn.ReLU(),
    torch.nn.Linear(128, 10),
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
optimizer = flatmin.SAM(optimizer, model, rho=0.05)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)


def update(engine, batch):
    model.train()
    x, y = batch
    for probe in optimizer.probes():
        probe.loss = loss = cross_entropy(model(x), y)
        loss.backward()
    optimizer.step()
    return optimizer.statistics.loss.item()


trainer = Engine(update)


@trainer.on(Events.EPOCH_COMPLETED)
def anneal():
    scheduler.step()


trainer.run(loader, max_epochs=10)

model.eval()
with torch.no_grad():
    wrong = model(x_test).argmax(1) != y_test
print(f"test error {100 * wrong.float().mean():.2f} %")
