"""Handwritten digits with Accelerate; compare with ``diff plain.py sam.py``.

Run: python plain.py, then python sam.py. It takes seconds on a CPU.
"""

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import flatmin
from flatmin.integrations.accelerate import probes

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
parts = train_test_split(images.astype("float32") / 16, labels, random_state=0)
x_train, x_test, y_train, y_test = map(torch.from_numpy, parts)
loader = DataLoader(TensorDataset(x_train, y_train), batch_size=32, shuffle=True)

model = torch.nn.Sequential(
    torch.nn.Linear(64, 128),
    torch.nn.BatchNorm1d(128),
    torch.nn.ReLU(),
    torch.nn.Linear(128, 10),
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
optimizer = flatmin.SAM(optimizer, model, rho=0.05)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=220)
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
prepared = accelerator.prepare(model, optimizer, scheduler, loader)
model, optimizer, scheduler, loader = prepared

for _ in range(10):
    for x, y in loader:
        with accelerator.accumulate(model):
            for _ in probes(accelerator, model, optimizer):
                loss = cross_entropy(model(x), y)
                accelerator.backward(loss)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()

model.eval()
with torch.no_grad():
    wrong = model(x_test).argmax(1) != y_test
print(f"test error {100 * wrong.float().mean():.2f} %")
